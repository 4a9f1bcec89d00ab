"""Admin routes of the card service: manual reviews of top-ups, and blocks after declined cards.

A driver is a task that makes a top-up's calls. A block is a reached limit of declined cards.
"""

from collections.abc import AsyncGenerator
from math import ceil
from uuid import UUID

import structlog
from fastapi import APIRouter, HTTPException, Request

from kit.auth.principal import Principal
from kit.http.admin import JsonLinesResponse
from subgraphs.card.service.adapters.attempts import AttemptRepository
from subgraphs.card.service.adapters.repository import LeaseLostError, Repository
from subgraphs.card.service.application.saga import Saga
from subgraphs.card.service.domain.declines import Block, DeclineLimits, LimitKind
from subgraphs.card.service.domain.top_up import TopUp
from wallet.errors import TEMPORARY_ERRORS, TopUpNotFound, Unavailable

log = structlog.get_logger(__name__)


def review_router(repository: Repository, saga: Saga) -> APIRouter:
    """Create the routes that list top-ups for review and retry them.

    `GET /review` returns one line for each top-up that needs a review, then a line with their number.

    `POST /review/{id}/retry` schedules the step at which a top-up stopped and returns the top-up without waiting for
    the step. A final top-up is compared with the acquirer's payment again. The response is 404 if the top-up needs no
    review, and 409 if another driver has changed the top-up.

    `POST /review/deposits` marks for review the completed top-ups whose deposit the ledger lacks, and returns the same
    lines as `GET /review`. A retry of such a top-up makes the deposit again. If the ledger has the deposit of a top-up
    under review, this top-up is compared with the acquirer's payment again. The response is 409 if a driver has changed
    a top-up meanwhile.

    All routes return 503 if the database is unavailable; `POST /review/deposits` also if the bank or the acquirer is
    unavailable, late or overloaded.
    """
    router = APIRouter()

    @router.get("/review")
    async def list_reviews() -> JsonLinesResponse:
        try:
            return JsonLinesResponse(_lines(await repository.list_for_review()))
        except Unavailable as error:
            raise HTTPException(503, error.message) from None

    @router.post("/review/deposits")
    async def review_missing_deposits() -> JsonLinesResponse:
        try:
            await saga.review_missing_deposits()
            return JsonLinesResponse(_lines(await repository.list_for_review()))
        except LeaseLostError:
            raise HTTPException(409, "a driver has changed a top-up meanwhile; repeat the request") from None
        except TEMPORARY_ERRORS as error:
            raise HTTPException(503, error.message) from None

    @router.post("/review/{top_up_id}/retry")
    async def retry(top_up_id: UUID) -> JsonLinesResponse:
        try:
            return JsonLinesResponse(_lines([await saga.retry(top_up_id)]))
        except TopUpNotFound:
            raise HTTPException(404, f"no top-up {top_up_id} needs a review") from None
        except LeaseLostError:
            raise HTTPException(409, "another driver has changed the top-up; list the reviews again") from None
        except Unavailable as error:
            raise HTTPException(503, error.message) from None

    return router


def decline_router(attempts: AttemptRepository, limits: DeclineLimits) -> APIRouter:
    """Create the routes that list the blocks after declined cards and lift them.

    `GET /declines` returns one line for each customer, address and card that is blocked now, then a line with the
    number of blocks.

    `POST /declines/{kind}/{attempt_id}/lift` ends a block: its declines no longer count for this kind of limit. The
    route stores the operator's principal and returns the number of declines. The response is 404 if there is no such
    block.

    Both routes return 503 if the database is unavailable.
    """
    router = APIRouter()

    @router.get("/declines")
    async def list_blocks() -> JsonLinesResponse:
        try:
            return JsonLinesResponse(_block_lines(await attempts.list_blocks(limits)))
        except Unavailable as error:
            raise HTTPException(503, error.message) from None

    @router.post("/declines/{kind}/{attempt_id}/lift")
    async def lift(kind: LimitKind, attempt_id: UUID, request: Request) -> JsonLinesResponse:
        operator: Principal = request.state.principal
        try:
            declines = await attempts.lift_block(kind, attempt_id, operator.scope)
        except Unavailable as error:
            raise HTTPException(503, error.message) from None
        if not declines:
            raise HTTPException(404, f"there is no block {kind}/{attempt_id}; list the blocks again")
        log.warning("decline block lifted", limit=kind, declines=declines, operator=operator.subject)
        return JsonLinesResponse(_lift_lines(declines))

    return router


async def _block_lines(blocks: list[Block]) -> AsyncGenerator[dict[str, object], None]:
    for block in blocks:
        yield {
            "block": {
                "id": f"{block.kind}/{block.attempt_id}",
                "limit": block.kind,
                "subject": block.subject,
                "customers": block.customers,
                "declines": block.declines,
                "maximum": block.maximum,
                "seconds": ceil(block.seconds),
            }
        }
    yield {"blocks": len(blocks)}


async def _lift_lines(declines: int) -> AsyncGenerator[dict[str, object], None]:
    yield {"declines": declines}


async def _lines(top_ups: list[TopUp]) -> AsyncGenerator[dict[str, object], None]:
    for top_up in top_ups:
        yield {"top_up": _top_up_to_json(top_up)}
    yield {"top_ups": len(top_ups)}


def _top_up_to_json(top_up: TopUp) -> dict[str, object]:
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
