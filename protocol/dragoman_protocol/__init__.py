"""The wire of Dragoman: every type, every method, every error, both framings and one symmetric peer.

Two halves. *Values* (`content`, `auth`, `session`, `query`, `stream`, `orchestrate`, `limits`, `lifecycle`)
say what travels. *RPC* (`methods`, `errors`, `wire`, `codec`, `peer`) says how. Values never import RPC.

This package imports the standard library and msgspec, opens no socket, starts no task and reads no clock,
so it is the same on both ends and in every test. Nothing is imported here: name the module you need.
"""

VERSION = "0.1.0"
"""Version of the distribution; `initialize` reports it as `serverInfo.version`."""

PROTOCOL_VERSION = 1
"""Integer version of the wire. It rises only for a change that old clients cannot ignore."""
