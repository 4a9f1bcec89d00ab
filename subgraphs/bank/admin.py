"""What the bank's admin interface has beside health and metrics."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict

import orjson
from fastapi import APIRouter, HTTPException
from fastapi.responses import StreamingResponse
from starlette.types import Send

from subgraphs.bank.integrity import Integrity, Progress, Report
from subgraphs.bank.repository.proof import Violation


class _Lines(StreamingResponse):
    """JSON, a value a line. What makes them is ended with the response, however that ends."""

    media_type = "application/x-ndjson"

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


def integrity_router(integrity: Integrity) -> APIRouter:
    """`GET /integrity` proves the ledger and tells how it goes, line by line; the last line is the verdict. When the
    client goes away, the proof ends. 409 while another one runs.
    """
    router = APIRouter()

    @router.get("/integrity")
    async def prove() -> StreamingResponse:
        if integrity.is_proving:
            raise HTTPException(409, "a proof of this ledger is running in this process: wait for its end")
        return _Lines(_lines(integrity))

    return router


async def _lines(integrity: Integrity) -> AsyncIterator[bytes]:
    async with aclosing(integrity.prove()) as reports:
        async for report in reports:
            yield orjson.dumps(_line(report), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)


def _line(report: Report) -> dict[str, object]:
    match report:
        case Progress():
            return {"progress": asdict(report)}
        case Violation():
            return {"violation": asdict(report)}
        case _:
            return asdict(report)
