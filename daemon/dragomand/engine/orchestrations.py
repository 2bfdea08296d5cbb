"""Several queries as one plan (00.17, 03.2).

First form: side by side, every outcome kept, in the order of the items. A plan keeps its own backlog: it
holds at most `maxConcurrent` places at the door, and where the door is full it waits instead of failing.
"""

import math
import secrets
from collections.abc import Callable
from dataclasses import replace

import anyio
from dragoman_protocol.orchestrate import (
    OrchestrateItem,
    OrchestrateOutcome,
    OrchestrateParallelParams,
    OrchestrateParallelResult,
)
from dragoman_protocol.query import AnswerOptions, QueryRunParams, QueryRunResult

from .caller import Caller
from .errors import EngineError
from .queries import Queries

MAX_ITEMS = 1000
MAX_CONCURRENT = 100
ITEM_TIMEOUT_MS = 300_000
"""Default time of one item (03.4)."""

OutcomeSink = Callable[[OrchestrateOutcome], None]
"""Told each outcome as it comes."""


class Orchestrations:
    """Runs plans on the same door as everything else."""

    def __init__(
        self, queries: Queries, new_id: Callable[[], str] = lambda: secrets.token_hex(16)
    ) -> None:
        """Run the items of plans as *queries*; *new_id* names a plan's tree."""
        self._queries = queries
        self._new_id = new_id

    async def parallel(
        self,
        params: OrchestrateParallelParams,
        caller: Caller,
        *,
        started: Callable[[str], None],
        outcome: OutcomeSink,
    ) -> OrchestrateParallelResult:
        """Run every item and return every outcome; one failure never discards the others (03.9).

        Raises `EngineError` only for a plan that cannot be run at all. Cancelling it cancels what runs.
        """
        _in_range("items", len(params.items), MAX_ITEMS)
        _in_range("maxConcurrent", params.max_concurrent, MAX_CONCURRENT)
        self._queries.check_plan(params.cwd)
        outcomes: list[OrchestrateOutcome | None] = [None] * len(params.items)
        places = anyio.Semaphore(params.max_concurrent)
        if caller.tree_id is None:
            caller = replace(caller, tree_id=self._new_id())

        async def run(index: int, item: OrchestrateItem) -> None:
            async with places:
                try:
                    result = await self._run(_query(item, params), caller, started)
                except EngineError as error:
                    done = OrchestrateOutcome(index=index, error=error.told())
                else:
                    done = OrchestrateOutcome(index=index, result=result)
            outcomes[index] = done
            outcome(done)

        async with anyio.create_task_group() as group:
            for index, item in enumerate(params.items):
                group.start_soon(run, index, item)
        data = [done for done in outcomes if done is not None]
        succeeded = sum(done.result is not None for done in data)
        return OrchestrateParallelResult(data=data, succeeded=succeeded, failed=len(data) - succeeded)

    async def _run(
        self, query: QueryRunParams, caller: Caller, started: Callable[[str], None]
    ) -> QueryRunResult:
        """Run one item; when the door is full, wait for room, as long as the item may take."""
        until = anyio.current_time() + (query.timeout_ms or ITEM_TIMEOUT_MS) / 1000
        if query.timeout_ms is None and query.priority == "batch":
            until = math.inf  # its time begins when it is admitted
        while True:
            with anyio.CancelScope(deadline=until) as patience:
                await self._queries.admission.room(caller.id)
            if patience.cancelled_caught:
                raise EngineError("queue_timeout", "The item found no room at the door before its deadline.")
            try:
                return await self._queries.run(
                    query, caller, started=started, timeout_ms=ITEM_TIMEOUT_MS
                )
            except EngineError as error:
                if error.kind != "queue_full":
                    raise


def _query(item: OrchestrateItem, plan: OrchestrateParallelParams) -> QueryRunParams:
    chosen = {name: getattr(item, name) for name in AnswerOptions.__struct_fields__}
    return QueryRunParams(
        prompt=item.prompt,
        cwd=plan.cwd,
        priority=plan.priority,
        timeout_ms=item.timeout_ms,
        **chosen,
    )


def _in_range(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise EngineError(
            "invalid_params",
            f"{name} must be from 1 to {most}; got {value}.",
            path=f"$.{name}",
            reason="out of range",
        )
