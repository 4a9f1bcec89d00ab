"""What the card service's admin interface has beside health, metrics and the proof."""

from collections.abc import AsyncGenerator
from uuid import UUID

from fastapi import APIRouter, HTTPException

from kit.http.admin import JsonLinesResponse
from subgraphs.card.service.adapters.repository import LeaseLostError, Repository
from subgraphs.card.service.application.saga import Saga
from subgraphs.card.service.domain.top_up import TopUp
from wallet.errors import TopUpNotFound, Unavailable


def review_router(repository: Repository, saga: Saga) -> APIRouter:
    """`GET /review` tells what a person has to look at, a top-up a line, and at last how many there are. `POST
    /review/{id}/retry` puts one back to the step that it stopped in, or has a final one compared with the acquirer's
    payment again, and tells it as it is now. 404 where there is nothing to look at, 409 when it has just changed, 503
    while the database is away.
    """
    router = APIRouter()

    @router.get("/review")
    async def review() -> JsonLinesResponse:
        try:
            return JsonLinesResponse(_lines(await repository.to_review()))
        except Unavailable as error:
            raise HTTPException(503, error.message) from None

    @router.post("/review/{top_up_id}/retry")
    async def retry(top_up_id: UUID) -> JsonLinesResponse:
        try:
            return JsonLinesResponse(_lines([await saga.retry(top_up_id)]))
        except TopUpNotFound:
            raise HTTPException(404, f"no top-up {top_up_id} is to be looked at") from None
        except LeaseLostError:
            raise HTTPException(409, "it has just been changed: look again") from None
        except Unavailable as error:
            raise HTTPException(503, error.message) from None

    return router


async def _lines(top_ups: list[TopUp]) -> AsyncGenerator[dict[str, object], None]:
    for top_up in top_ups:
        yield {"top_up": _shown(top_up)}
    yield {"top_ups": len(top_ups)}


def _shown(top_up: TopUp) -> dict[str, object]:
    return {
        "id": str(top_up.id),
        "account_id": str(top_up.account_id),
        "amount": str(top_up.amount),
        "currency": top_up.amount.currency,
        "status": top_up.status,
        "step": top_up.step,
        "failure": top_up.failure,
        "payment_id": top_up.payment_id,
        "review": top_up.review,
    }
