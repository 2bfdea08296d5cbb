"""What Dragoman does, without saying how it is asked.

It knows nothing of JSON-RPC and can be driven by a test.
"""
