"""The command `dragoman`: bare commands for programs, and commands for people (extra `cli`)."""
