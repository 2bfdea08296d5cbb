"""Claude Code as an upstream: its stream-json wire spoken by ourselves. `ClaudeCode` is the way in."""

from dragomand.upstream.claude_code.claude import ClaudeCode
from dragomand.upstream.claude_code.command import ApiSettings
from dragomand.upstream.claude_code.pool import PoolSettings

__all__ = ["ApiSettings", "ClaudeCode", "PoolSettings"]
