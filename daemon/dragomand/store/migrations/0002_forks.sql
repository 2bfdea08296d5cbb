-- Sessions that were forked from others, and what a session keeps from turn to turn.

ALTER TABLE session ADD COLUMN agent TEXT;
ALTER TABLE session ADD COLUMN kept BLOB;

ALTER TABLE session ADD COLUMN forked_from TEXT;
ALTER TABLE session ADD COLUMN forked_at_turn TEXT;
ALTER TABLE session ADD COLUMN forked_seq INTEGER;
ALTER TABLE session ADD COLUMN claude_fork_session_id TEXT;
ALTER TABLE session ADD COLUMN claude_fork_leaf_id TEXT;
ALTER TABLE session ADD COLUMN claude_fork_count INTEGER;

ALTER TABLE turn ADD COLUMN claude_leaf_id TEXT;
ALTER TABLE turn ADD COLUMN claude_message_count INTEGER;
ALTER TABLE turn ADD COLUMN origin_turn_id TEXT;
