-- Sessions, their turns and final items, runs of Claude Code, and small state of other parts of the daemon.
-- Rows refer to each other by small integers of the database's own; the ids of the outside are text.

CREATE TABLE session (
  session_key INTEGER PRIMARY KEY,
  session_id TEXT NOT NULL UNIQUE,
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL,
  cwd TEXT,
  title TEXT,
  model TEXT,
  owner TEXT,
  claude_session_id TEXT,
  claude_message_count INTEGER,
  epoch TEXT NOT NULL,
  last_seq INTEGER NOT NULL,
  turn_count INTEGER NOT NULL,
  item_count INTEGER NOT NULL,
  cost_usd REAL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cache_read_tokens INTEGER NOT NULL,
  cache_creation_tokens INTEGER NOT NULL,
  last_turn_status TEXT
) STRICT;

CREATE INDEX session_by_update ON session (updated_at, session_key);
CREATE INDEX session_by_cwd ON session (cwd, updated_at, session_key);

CREATE TABLE session_tag (
  session_key INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
  position INTEGER NOT NULL,
  tag TEXT NOT NULL,
  PRIMARY KEY (session_key, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX session_tag_by_tag ON session_tag (tag);

CREATE TABLE turn (
  turn_key INTEGER PRIMARY KEY,
  turn_id TEXT NOT NULL UNIQUE,
  session_key INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
  status TEXT NOT NULL,
  started_at REAL NOT NULL,
  completed_at REAL,
  message_id TEXT UNIQUE,
  request_digest TEXT,
  model TEXT,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cache_read_tokens INTEGER NOT NULL,
  cache_creation_tokens INTEGER NOT NULL,
  cost_usd REAL,
  stop_reason TEXT,
  error BLOB,
  queued_ms INTEGER NOT NULL,
  upstream TEXT NOT NULL,
  duration_ms INTEGER
) STRICT;

CREATE INDEX turn_by_session ON turn (session_key, turn_key);
CREATE INDEX turn_running ON turn (turn_key) WHERE status = 'running';

CREATE TABLE item (
  item_key INTEGER PRIMARY KEY,
  session_key INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
  turn_key INTEGER NOT NULL REFERENCES turn ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  item_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  created_at REAL NOT NULL,
  body BLOB NOT NULL,
  UNIQUE (session_key, seq)
) STRICT;

CREATE INDEX item_by_turn ON item (turn_key, seq);

CREATE TABLE process_run (
  run_id TEXT PRIMARY KEY,
  session_key INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
  claude_session_id TEXT,
  claude_version TEXT,
  started_at REAL NOT NULL,
  ended_at REAL,
  cost_total_usd REAL
) STRICT, WITHOUT ROWID;

CREATE INDEX process_run_by_session ON process_run (session_key);

CREATE TABLE state (
  key TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
