"""Use cases of the card service, with the authorization of callers."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from math import ceil
from typing import Final
from uuid import UUID

import structlog
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from kit.auth.principal import Principal
from kit.rpc import request_context
from kit.runtime.backoff import Backoff
from kit.runtime.fair_limit import FairLimit
from subgraphs.bank.client import BankClient
from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.acquirer import Acquirer, on_behalf_of
from subgraphs.card.service.adapters.attempts import AttemptRepository
from subgraphs.card.service.adapters.bank_ledger import check_account
from subgraphs.card.service.adapters.repository import Repository
from subgraphs.card.service.application.saga import Saga, utc_now
from subgraphs.card.service.application.subscription_hub import SubscriptionHub
from subgraphs.card.service.domain.cards import CardDetails, check_card
from subgraphs.card.service.domain.declines import (
    Blocked,
    DeclineLimits,
    NewAttempt,
    Room,
    card_digest,
    card_fingerprint,
)
from subgraphs.card.service.domain.payment import Refusal
from subgraphs.card.service.domain.rules import Limits, check_request, is_replay, request_fingerprint
from subgraphs.card.service.domain.top_up import IdempotencyKey, NewTopUp, TopUp, TopUpPage, TopUpPageRequest
from wallet import paging
from wallet.errors import (
    TEMPORARY_ERRORS,
    AccountNotFound,
    FieldViolation,
    IdempotencyConflict,
    InvalidInput,
    RateLimited,
    TopUpDeclinesExceeded,
    TopUpNotFound,
    Unavailable,
    WalletError,
)
from wallet.idempotency_key import stored_forms
from wallet.money import Money

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_SECONDS: Final = 2.5
"""Maximum wait for a final status before the current state is returned; below the gateway's time-out of 5 s."""

_MAX_OFFSET_WEST_OF_UTC: Final = timedelta(hours=12)
"""A card is valid until the end of its month in the westernmost time zone."""
_DEADLINE_MARGIN_SECONDS: Final = 0.2
"""Time before the caller's deadline at which the response is sent."""
_MAX_WAIT_SECONDS: Final = 3.0
"""Maximum wait for other attempts of the customer, the address or the card."""
_AT_ONCE: Final = "card authorizations at once"
"""Name in errors of the limit on one customer's concurrent authorizations."""
_FIRST_DELAY_SECONDS: Final = 0.05
_LONGEST_DELAY_SECONDS: Final = 0.4


@dataclass(frozen=True, slots=True)
class TopUpOptions:
    """Options of the use cases.

    Attributes:
        limits: limits by currency.
        fingerprint_secret: key of the fingerprints of requests and cards. With a new key, repeats of earlier requests
            are refused as conflicts.
        access_seconds: interval between checks that a subscriber may still read the account.
        decline_limits: limits of declined cards.
    """

    limits: Limits
    fingerprint_secret: SecretStr
    access_seconds: float = 60.0
    decline_limits: DeclineLimits = field(default_factory=DeclineLimits)


class TopUps:
    """Use cases for verified callers.

    A customer pays into their own accounts and reads the top-ups of these accounts. `Principal.can_write_all` and
    `Principal.can_read_all` extend this to all accounts.
    """

    def __init__(
        self,
        repository: Repository,
        attempts: AttemptRepository,
        acquirer: Acquirer,
        bank: BankClient,
        saga: Saga,
        hub: SubscriptionHub,
        options: TopUpOptions,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._repository = repository
        self._attempts = attempts
        self._acquirer = acquirer
        self._bank = bank
        self._saga = saga
        self._hub = hub
        self._options = options
        self._clock = clock
        self._secret = options.fingerprint_secret.get_secret_value().encode()
        self._authorizations = FairLimit(options.decline_limits.per_customer)

    async def create(
        self,
        caller: Principal,
        account_id: UUID,
        amount: Money,
        card: CardDetails,
        idempotency_key: str,
        address: str | None = None,
        raw_key: str | None = None,
    ) -> tuple[TopUp, bool]:
        """Start a top-up, once for each caller and key, and wait a short time for its end.

        Args:
            caller: verified caller.
            account_id: account that receives the amount.
            amount: amount to take from the card.
            card: card to charge.
            idempotency_key: identifies the request for this caller.
            address: address or network of the client, if the gateway stated it.
            raw_key: the key as the client sent it, in quotation marks or with spaces around it; None if the client
                sent `idempotency_key` itself. If an earlier release stored a top-up with the raw key, this top-up is
                returned.

        Returns:
            The top-up in its current state, and whether an earlier request started it.

        Raises:
            InvalidInput, AccountNotFound, AccountClosed, CurrencyMismatch, TopUpLimitExceeded, IdempotencyConflict:
                no top-up was started.
            TopUpDeclinesExceeded: too many cards were declined; no top-up was started and the acquirer was not called.
            RateLimited: other top-ups of the customer, the address or the card are being authorized; no top-up was
                started.
            Unavailable, DeadlineExceeded: the outcome is unknown; a retry with the same key is safe.
        """
        violations = check_request(amount, idempotency_key, raw_key)
        violations += check_card(card, (self._clock() - _MAX_OFFSET_WEST_OF_UTC).date())
        if violations:
            raise InvalidInput(tuple(violations))
        key = IdempotencyKey(caller.scope, *stored_forms(idempotency_key, raw_key))
        top_up = await self._repository.find_by_key(key)
        if top_up is None:
            clock = asyncio.get_running_loop().time
            wait_seconds = request_context.current_request.get().remaining(_MAX_WAIT_SECONDS)
            wait_until = clock() + wait_seconds
            attempt = NewAttempt(uuid7(), key, address, card_fingerprint(self._secret, card.number))
            refusal = partial(RateLimited, _AT_ONCE, "1")
            async with self._authorizations.hold(caller.scope, timeout_seconds=wait_seconds, refusal=refusal):
                top_up = await self._reserve(attempt, wait_until)
                if top_up is None:
                    top_up = await self._begin(caller, account_id, amount, card, attempt)
                    return await self._wait_for_end(top_up), top_up.id != attempt.id
        # A replay returns its top-up even if cards were declined or the account was closed in the meantime.
        if not is_replay(top_up, self._secret, card, account_id, amount):
            raise IdempotencyConflict(idempotency_key)
        await self._saga.resume(top_up)
        return await self._wait_for_end(top_up), True

    async def get(self, caller: Principal, id_: UUID) -> TopUp:
        """Return a top-up.

        Raises:
            TopUpNotFound: the top-up does not exist, or the caller may not read it.
        """
        top_up = (await self.get_many(caller, [id_])).get(id_)
        if top_up is None:
            raise TopUpNotFound(str(id_))
        return top_up

    async def get_many(self, caller: Principal, ids: Sequence[UUID]) -> dict[UUID, TopUp]:
        """Return the existing top-ups that the caller may read, by id."""
        top_ups = await self._repository.get(ids)
        return {id_: top_up for id_, top_up in top_ups.items() if _may_read(caller, top_up)}

    async def list_by_account(self, request: TopUpPageRequest) -> TopUpPage:
        """Return a page of an account's top-ups, newest first. The bank checks that the caller may read the account.

        Raises:
            InvalidInput: the limit or the bounds are invalid.
            AccountNotFound: the account does not exist, or the caller may not read it.
            Unavailable: the database or the bank is unavailable.
        """
        (page,) = await self.list_pages([request])
        if isinstance(page, WalletError):
            raise page
        return page

    async def list_pages(self, requests: Sequence[TopUpPageRequest | InvalidInput]) -> list[TopUpPage | WalletError]:
        """Return a page, or the error that `list_by_account` would raise, for each request. The bank is called once.

        Args:
            requests: the pages, within the limits of `paging.check_batch`; an error instead of a request is returned.

        Raises:
            Unavailable: the database or the bank is unavailable.
        """
        results: dict[TopUpPageRequest, TopUpPage | WalletError] = {}
        valid: list[TopUpPageRequest] = []
        for request in dict.fromkeys(each for each in requests if isinstance(each, TopUpPageRequest)):
            if violations := _violations(request):
                results[request] = InvalidInput(tuple(violations))
            else:
                valid.append(request)
        account_ids = dict.fromkeys(each.account_id for each in valid)
        accounts = await self._bank.batch_get_accounts(list(account_ids)) if valid else {}
        for request in valid:
            if isinstance(error := accounts[request.account_id], WalletError):
                results[request] = error
        readable = [each for each in valid if each not in results]
        if readable:
            sized = [replace(each, limit=paging.page_size(each.limit)) for each in readable]
            results |= zip(readable, await self._repository.list_pages(sized), strict=True)
        return [results[each] if isinstance(each, TopUpPageRequest) else each for each in requests]

    async def watch(self, caller: Principal, id_: UUID) -> AsyncGenerator[TopUp, None]:
        """Yield the current state of a top-up, then each change, until it is final.

        The bank periodically checks that the current caller may still read the account.

        Raises:
            TopUpNotFound: the top-up does not exist, or the caller may not read it.
            AccountNotFound: the caller may no longer read the account.
            Unavailable: the database is unavailable, or this process stops. A retry is safe.
        """
        clock = asyncio.get_running_loop().time
        next_check_at = clock() + self._options.access_seconds

        async def check(top_up: TopUp) -> None:
            nonlocal next_check_at
            if not _may_read(caller, top_up):
                raise TopUpNotFound(str(id_))
            if clock() >= next_check_at:
                next_check_at = clock() + self._options.access_seconds
                with suppress(*TEMPORARY_ERRORS):  # the bank gave no decision, so access continues
                    await self._bank.get_account(top_up.account_id)

        async with aclosing(self._hub.watch(id_, check)) as states:
            async for top_up in states:
                yield top_up

    async def _reserve(self, attempt: NewAttempt, wait_until: float) -> TopUp | None:
        """Wait until the limits of declined cards have room for an attempt, and store the attempt.

        Returns:
            None if the attempt was stored; else the top-up with the request's key, which another request has created in
            the meantime.

        Raises:
            TopUpDeclinesExceeded: too many cards were declined.
            RateLimited: other attempts in progress have left no room until `wait_until`.
        """
        clock, backoff = asyncio.get_running_loop().time, Backoff(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS)
        while True:
            verdict = await self._attempts.reserve(attempt, self._options.decline_limits)
            if isinstance(verdict, Room):
                return None
            if top_up := await self._repository.find_by_key(attempt.key):
                return top_up
            if isinstance(verdict, Blocked):
                retry_after = max(1, ceil(verdict.seconds))
                metrics.TOP_UPS_BLOCKED.labels(verdict.kind).inc()
                log.warning("top-up blocked after declined cards", limit=verdict.kind, retry_after_seconds=retry_after)
                raise TopUpDeclinesExceeded(str(retry_after))
            if clock() >= wait_until:
                raise RateLimited(_AT_ONCE, "1")
            await asyncio.sleep(backoff.next_delay())

    async def _begin(
        self, caller: Principal, account_id: UUID, amount: Money, card: CardDetails, attempt: NewAttempt
    ) -> TopUp:
        """Let the acquirer tokenize the card of a reserved attempt, and start the top-up.

        If the call is cancelled, the attempt counts until the end of `DeclineLimits.attempt_seconds`, because the
        acquirer may have received the card.
        """
        try:
            owner_id = await self._get_owner_id(caller, account_id, amount.currency)
            with on_behalf_of(attempt.key.principal):
                token = await self._acquirer.tokenize(card)
            if not isinstance(token, Refusal):
                fingerprint = request_fingerprint(self._secret, token.token, account_id, amount)
                digest = card_digest(self._secret, card)
                new = NewTopUp(attempt.id, attempt.key, fingerprint, owner_id, account_id, amount, token, digest)
                return await self._saga.begin(new, self._options.limits)
        except WalletError:
            with suppress(Unavailable):
                await self._attempts.end_attempt(attempt.id)
            raise
        await self._attempts.record_decline(attempt.id)
        metrics.TOKENS_REFUSED.inc()
        raise InvalidInput.for_field("card.number", "is not accepted by the acquirer")

    async def _get_owner_id(self, caller: Principal, account_id: UUID, currency: str) -> str:
        """Return the owner of an account that the caller may pay into."""
        account = await self._bank.get_account(account_id)
        if not (caller.can_write_all or account.owner_id == caller.subject):
            raise AccountNotFound(str(account_id))
        check_account(account, currency)
        return account.owner_id

    async def _wait_for_end(self, top_up: TopUp) -> TopUp:
        """Return the top-up when it is no longer in progress, or its current state when the response is due."""
        remaining = request_context.current_request.get().remaining(ANSWER_TIMEOUT_SECONDS + _DEADLINE_MARGIN_SECONDS)
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(max(0.0, remaining - _DEADLINE_MARGIN_SECONDS)):
                top_up = await self._saga.wait_for_driver(top_up)
                if top_up.is_in_progress:  # it waits for a retry, or another process drives it
                    async with aclosing(self._hub.watch(top_up.id)) as states:
                        async for top_up in states:
                            if not top_up.is_in_progress:
                                break
        return top_up


def _may_read(caller: Principal, top_up: TopUp) -> bool:
    return caller.can_read_all or top_up.owner_id == caller.subject


def _violations(request: TopUpPageRequest) -> list[FieldViolation]:
    violations = []
    if not 0 <= request.limit <= paging.MAX_PAGE:
        violations.append(FieldViolation("pageSize", f"must be 1 to {paging.MAX_PAGE}, or 0 for {paging.DEFAULT_PAGE}"))
    if request.older_than is not None and request.newer_than is not None:
        violations.append(FieldViolation("newerThan", "must not be combined with olderThan"))
    return violations
