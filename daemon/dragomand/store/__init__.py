"""The session database. `database` owns the one connection; the other files are what is stored."""
