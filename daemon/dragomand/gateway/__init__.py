"""The gateway: API calls of Claude Code and of other local programs on their way to the Messages API.

HTTP on a socket of its own. It holds the credential, so that no child does; every call passes the engine's
admission and is counted by what its answer says as it goes by. Nothing heavy is loaded before a run needs it.
"""
