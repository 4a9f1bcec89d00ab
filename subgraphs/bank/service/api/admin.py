"""Admin route that dates operations of the future anew."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict

from fastapi import APIRouter, Request

from kit.http.admin import JsonLinesResponse
from subgraphs.bank.service.application.redating import Progress, Redating


def redating_router(redating: Redating) -> APIRouter:
    """Return the route `POST /redate`, which streams progress as JSON lines, and the outcome as the last line.

    Without `apply=true` it only counts the operations that are dated in the future. A client that disconnects before
    the outcome ends the repair, and nothing is changed.
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
