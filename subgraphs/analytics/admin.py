"""What analytics' admin interface has beside health and metrics."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from uuid import UUID

from fastapi import APIRouter, HTTPException

from kit.admin import JsonLines
from subgraphs.analytics import integrity, replay
from subgraphs.analytics.integrity import Integrity
from subgraphs.analytics.replay import Replay


def completeness_router(integrity: Integrity, replay: Replay) -> APIRouter:
    """Both tell how it goes, line by line, and end when the client goes away. 409 while another one of the kind runs.

    `GET /integrity` proves that the history is the ledger's; the last line is the verdict. `POST /replay` pulls what
    the history lacks, of one account with `account_id`; with `all_operations` it also mends what is wrong. The last
    line is the outcome.
    """
    router = APIRouter()

    @router.get("/integrity")
    async def prove() -> JsonLines:
        if integrity.is_proving:
            raise HTTPException(409, "a proof of this history is running in this process: wait for its end")
        return JsonLines(_proof(integrity))

    @router.post("/replay")
    async def run(account_id: UUID | None = None, all_operations: bool = False) -> JsonLines:
        if replay.is_replaying:
            raise HTTPException(409, "a replay is running in this process: wait for its end")
        return JsonLines(_replay(replay, account_id, all_operations=all_operations))

    return router


async def _proof(proof: Integrity) -> AsyncGenerator[dict[str, object], None]:
    async with aclosing(proof.prove()) as reports:
        async for report in reports:
            match report:
                case integrity.Progress():
                    yield {"progress": asdict(report)}
                case integrity.Violation():
                    yield {"violation": asdict(report)}
                case _:
                    yield asdict(report)


async def _replay(
    running: Replay, account_id: UUID | None, *, all_operations: bool
) -> AsyncGenerator[dict[str, object], None]:
    async with aclosing(running.replay(account_id, all_operations=all_operations)) as reports:
        async for report in reports:
            yield {"progress": asdict(report)} if isinstance(report, replay.Progress) else asdict(report)
