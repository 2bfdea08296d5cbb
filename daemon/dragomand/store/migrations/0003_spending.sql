-- What each turn may take and then took, for budgets and statistics. A row outlives its session: deleting a
-- session must not give its money back. Money in millionths of a US dollar.

CREATE TABLE spend (
  spend_key INTEGER PRIMARY KEY,
  spend_id TEXT UNIQUE,
  session_id TEXT,
  tree_id TEXT,
  client TEXT NOT NULL,
  project TEXT,
  model TEXT,
  upstream TEXT NOT NULL,
  status TEXT NOT NULL,
  started_at REAL NOT NULL,
  turns INTEGER NOT NULL,
  charged INTEGER NOT NULL,
  cost INTEGER,
  cost_unknown INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cache_read_tokens INTEGER NOT NULL,
  cache_creation_tokens INTEGER NOT NULL,
  queued_ms INTEGER NOT NULL,
  duration_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX spend_by_start ON spend (started_at);
CREATE INDEX spend_by_session ON spend (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX spend_running ON spend (spend_key) WHERE status = 'running';
