"""What analytics' admin interface has beside health, metrics and the proof."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from uuid import UUID

from fastapi import APIRouter, HTTPException

from kit.http.admin import JsonLinesResponse
from subgraphs.analytics.service.application.replay import Progress, Replay


def replay_router(replay: Replay) -> APIRouter:
    """`POST /replay` pulls what the history lacks, of one account with `account_id`, and with `all_operations` mends
    what is wrong. It tells how it goes, line by line; the last line is the outcome. When the client goes away, the
    replay ends. 409 while another one runs.
    """
    router = APIRouter()

    @router.post("/replay")
    async def run(account_id: UUID | None = None, all_operations: bool = False) -> JsonLinesResponse:
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
