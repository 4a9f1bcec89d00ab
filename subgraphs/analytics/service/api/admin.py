"""Admin route that starts a replay."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from uuid import UUID

from fastapi import APIRouter, HTTPException

from kit.http.admin import JsonLinesResponse
from subgraphs.analytics.service.application.replay import Progress, Replay


def replay_router(replay: Replay) -> APIRouter:
    """Return the route `POST /replay`, which streams progress as JSON lines, and the outcome as the last line.

    `account_id` limits the replay to one account. `all_operations` also replaces rows that differ from the ledger. A
    client that disconnects ends the replay. The status is 409 while another replay runs.
    """
    router = APIRouter()

    @router.post("/replay")
    async def run_replay(account_id: UUID | None = None, all_operations: bool = False) -> JsonLinesResponse:
        if replay.is_replaying:
            raise HTTPException(409, "a replay is running in this process: wait for its end")
        return JsonLinesResponse(_lines(replay, account_id, all_operations=all_operations))

    return router


async def _lines(
    replay: Replay, account_id: UUID | None, *, all_operations: bool
) -> AsyncGenerator[dict[str, object], None]:
    async with aclosing(replay.replay(account_id, all_operations=all_operations)) as reports:
        async for report in reports:
            yield {"progress": asdict(report)} if isinstance(report, Progress) else asdict(report)
