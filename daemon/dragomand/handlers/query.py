"""`query/*`."""

from dragoman_protocol.query import (
    CountTokensParams,
    CountTokensResult,
    QueryRunParams,
    QueryRunResult,
)

from dragomand.engine.queries import Queries
from dragomand.engine.sessions import Sessions
from dragomand.engine.token_counts import TokenCounts
from dragomand.server.route import Call, Handler

from .caller import caller_of
from .progress import event_progress
from .sessions_seen import noting


def query_handlers(queries: Queries, sessions: Sessions) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    async def run(call: Call, params: QueryRunParams) -> QueryRunResult:
        return await queries.run(
            params,
            caller_of(call.client),
            started=noting(call.client, sessions),
            subscriber=event_progress(call.client, params.partial_result_token),
        )

    return {"query/run": run}


def token_count_handlers(counts: TokenCounts) -> dict[str, Handler]:
    """Return the handler of `query/countTokens`."""

    async def count(_call: Call, params: CountTokensParams) -> CountTokensResult:
        return await counts.count(params)

    return {"query/countTokens": count}
