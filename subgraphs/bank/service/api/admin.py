"""Admin routes of the bank: the epoch of the ledger, and the redating of operations that are dated in the future.

An epoch is one uninterrupted sequence of the ledger's operations. A restore from an older backup begins another epoch.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict

from fastapi import APIRouter, HTTPException, Request

from kit.http.admin import JsonLinesResponse
from subgraphs.bank.service.adapters.postgres.epoch import Epochs
from subgraphs.bank.service.application.redating import Progress, Redating
from subgraphs.bank.service.domain.model import EpochRecord
from wallet.errors import Unavailable


def redating_router(redating: Redating) -> APIRouter:
    """Return the route `POST /redate`, which streams progress as JSON lines, and the outcome as the last line.

    Without `apply=true` the route only counts the operations that are dated in the future. If the client disconnects
    before the commit, the redating is cancelled and nothing is changed.
    """
    router = APIRouter()

    @router.post("/redate")
    async def run_redating(request: Request, apply: bool = False) -> JsonLinesResponse:
        return JsonLinesResponse(_lines(redating, request.state.principal.scope, apply=apply))

    return router


async def _lines(redating: Redating, redated_by: str, *, apply: bool) -> AsyncGenerator[dict[str, object], None]:
    async with aclosing(redating.run(redated_by, apply=apply)) as reports:
        async for report in reports:
            yield {"progress": asdict(report)} if isinstance(report, Progress) else asdict(report)


def epoch_router(epochs: Epochs) -> APIRouter:
    """Return the routes that show the ledger's epoch and begin a new one.

    `GET /epoch` responds with one JSON line: the epoch's id, its start and the reason. `POST /restored?epoch=…`
    replaces the epoch that has this id (the first epoch has an empty id) and responds with the new one. A retry is
    refused with 409, because the id is no longer that of the current epoch. Both routes respond with 503 while the
    database is unreachable.
    """
    router = APIRouter()

    @router.get("/epoch")
    async def get_epoch() -> JsonLinesResponse:
        try:
            return JsonLinesResponse(_epoch_line(await epochs.read()))
        except Unavailable as error:
            raise HTTPException(503, error.message) from None

    @router.post("/restored")
    async def end_epoch(epoch: str) -> JsonLinesResponse:
        try:
            is_replaced = await epochs.replace(epoch, "an operator has restored the ledger")
            current = await epochs.read()
        except Unavailable as error:
            raise HTTPException(503, error.message) from None
        if not is_replaced:
            raise HTTPException(409, f"the ledger is in epoch {current.epoch!r} since {current.began_at:%F %T}")
        return JsonLinesResponse(_epoch_line(current))

    return router


async def _epoch_line(record: EpochRecord) -> AsyncGenerator[dict[str, object], None]:
    yield {"epoch": record.epoch, "began_at": record.began_at.isoformat(), "reason": record.reason}
