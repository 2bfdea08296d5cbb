"""Writes what follows from the table of methods: JSON Schema, OpenRPC, `reference.md` and the Python stubs.

`python protocol/generate` writes, `python protocol/generate --check` only compares.
"""
