"""What the bank's admin interface has beside health and metrics."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict

from fastapi import APIRouter, HTTPException

from kit.admin import JsonLines
from subgraphs.bank.integrity import Integrity, Progress, Report
from subgraphs.bank.repository.proof import Violation


def integrity_router(integrity: Integrity) -> APIRouter:
    """`GET /integrity` proves the ledger and tells how it goes, line by line; the last line is the verdict. When the
    client goes away, the proof ends. 409 while another one runs.
    """
    router = APIRouter()

    @router.get("/integrity")
    async def prove() -> JsonLines:
        if integrity.is_proving:
            raise HTTPException(409, "a proof of this ledger is running in this process: wait for its end")
        return JsonLines(_reports(integrity))

    return router


async def _reports(integrity: Integrity) -> AsyncGenerator[dict[str, object], None]:
    async with aclosing(integrity.prove()) as reports:
        async for report in reports:
            yield _line(report)


def _line(report: Report) -> dict[str, object]:
    match report:
        case Progress():
            return {"progress": asdict(report)}
        case Violation():
            return {"violation": asdict(report)}
        case _:
            return asdict(report)
