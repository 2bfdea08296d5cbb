"""The daemon: one Claude for every editor, script and process of a user. See `../ARCHITECTURE.md`."""
