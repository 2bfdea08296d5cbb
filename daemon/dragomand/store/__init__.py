"""The session database: `store` has the calls, `rows` and `errors` what goes in and comes out.

`connection` opens the file and `migrate` brings it to this version's schema; `group_commit` is the one task
that writes and reads; `sessions` and `transcripts` are the SQL; `scrub` makes a delete a real one.
"""
