"""The card service's use cases: who may do what, and the answers."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import SecretStr
from uuid_utils.compat import uuid7

from kit.auth.principal import Principal
from kit.rpc import request_context
from subgraphs.bank.client import BankClient
from subgraphs.card.service.adapters.acquirer import Acquirer
from subgraphs.card.service.adapters.bank_ledger import check_account
from subgraphs.card.service.adapters.repository import Repository
from subgraphs.card.service.application.saga import Saga, utc_now
from subgraphs.card.service.application.subscription_hub import Watch
from subgraphs.card.service.domain import cards, rules
from subgraphs.card.service.domain.cards import CardDetails
from subgraphs.card.service.domain.rules import Limits
from subgraphs.card.service.domain.top_up import Key, Page, Refusal, TopUp, Wish
from wallet.errors import AccountNotFound, DeadlineExceeded, FieldViolation, InvalidInput, TopUpNotFound, Unavailable
from wallet.money import Money

_PAGE: Final = 50
_MAX_PAGE: Final = 1_000
_WEST_OF_UTC: Final = timedelta(hours=12)
"""A card is good to the end of its month wherever that ends last."""
_MARGIN_SECONDS: Final = 0.2
"""How long before its deadline a caller is answered."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms top-ups are made.

    Attributes:
        limits: how much may be paid in.
        answer_seconds: how long a caller is let wait for the end.
        fingerprint_secret: keys the requests' fingerprints. It must not change: repeated requests would be conflicts.
        access_seconds: how often a watcher's right to see the account is asked for again.
    """

    limits: Limits
    fingerprint_secret: SecretStr
    answer_seconds: float = 2.5
    access_seconds: float = 60.0


class Cards:
    """What callers may do. A customer pays into, and sees the top-ups of, their own accounts only;
    `Principal.moves_all` and `Principal.reads_all` are about everybody's.
    """

    def __init__(
        self,
        repository: Repository,
        acquirer: Acquirer,
        bank: BankClient,
        saga: Saga,
        watch: Watch,
        offered: Terms,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._repository = repository
        self._acquirer = acquirer
        self._bank = bank
        self._saga = saga
        self._watch = watch
        self._terms = offered
        self._clock = clock

    async def top_up(
        self, caller: Principal, account_id: UUID, amount: Money, card: CardDetails, idempotency_key: str
    ) -> TopUp:
        """Begins to pay a sum into an account, once per caller and key, and waits a short while for its end: the top-up
        in its current state; the same one again on a replay.

        Raises:
            InvalidInput, AccountNotFound, AccountClosed, CurrencyMismatch, TopUpLimitExceeded, IdempotencyConflict:
                nothing was begun.
            Unavailable, DeadlineExceeded: the outcome is unknown; a retry with the same key is safe.
        """
        violations = rules.check(amount, idempotency_key)
        violations += cards.check(card, (self._clock() - _WEST_OF_UTC).date())
        if violations:
            raise InvalidInput(tuple(violations))
        key = Key(caller.scope, idempotency_key)
        # What was begun is answered whatever has become of the account since.
        owner_id = "" if await self._repository.find(key) else await self._owner_id(caller, account_id, amount.currency)
        token = await self._acquirer.tokenize(card)
        if isinstance(token, Refusal):
            raise InvalidInput.for_field("card.number", "is not accepted")
        secret = self._terms.fingerprint_secret.get_secret_value().encode()
        fingerprint = rules.fingerprint(secret, token.token, account_id, amount)
        wish = Wish(uuid7(), key, fingerprint, owner_id, account_id, amount, token)
        return await self._answer(await self._saga.begin(wish, self._terms.limits))

    async def get(self, caller: Principal, id_: UUID) -> TopUp:
        """One top-up.

        Raises:
            TopUpNotFound: there is none, or it is not for the caller to see.
        """
        top_up = (await self.get_all(caller, [id_])).get(id_)
        if top_up is None:
            raise TopUpNotFound(str(id_))
        return top_up

    async def get_all(self, caller: Principal, ids: Sequence[UUID]) -> dict[UUID, TopUp]:
        """Those of the top-ups that exist and that the caller may see."""
        found = await self._repository.get(ids)
        return {id_: top_up for id_, top_up in found.items() if _may_see(caller, top_up)}

    async def page(
        self,
        account_id: UUID,
        *,
        limit: int,
        older_than: UUID | None,
        newer_than: UUID | None,
    ) -> Page:
        """A page of an account's top-ups, newest first.

        Args:
            account_id: whose top-ups; the bank knows whether the caller, who is the current call's, may see it.
            limit: how many at most; 0 for the usual number.
            older_than: the page has the newest of those older than this one.
            newer_than: the page has the oldest of those newer. Not together with `older_than`.

        Raises:
            InvalidInput: the limit or the bounds contradict the contract.
            AccountNotFound: there is no such account, or it is not for the caller to see.
            Unavailable: the top-ups or the bank do not answer.
        """
        violations = []
        if not 0 <= limit <= _MAX_PAGE:
            violations.append(FieldViolation("limit", f"must be 1 to {_MAX_PAGE}"))
        if older_than is not None and newer_than is not None:
            violations.append(FieldViolation("before", "does not go together with after"))
        if violations:
            raise InvalidInput(tuple(violations))
        await self._bank.get_account(account_id)
        return await self._repository.page(
            account_id, limit=limit or _PAGE, older_than=older_than, newer_than=newer_than
        )

    async def watch(self, caller: Principal, id_: UUID) -> AsyncGenerator[TopUp, None]:
        """A top-up as it is now, then as it changes, until it is final. Whether the caller, who is the current call's,
        may still see its account is asked for again meanwhile.

        Raises:
            TopUpNotFound: there is none, or it is not for the caller to see.
            AccountNotFound: its account is not for the caller to see any more.
            Unavailable: the top-ups are away, or this process stops. The reader may come back.
        """
        clock = asyncio.get_running_loop().time
        check_at = clock() + self._terms.access_seconds

        async def check(top_up: TopUp) -> None:
            nonlocal check_at
            if not _may_see(caller, top_up):
                raise TopUpNotFound(str(id_))
            if clock() >= check_at:
                check_at = clock() + self._terms.access_seconds
                with suppress(Unavailable, DeadlineExceeded):  # which says nothing of the right to see it
                    await self._bank.get_account(top_up.account_id)

        async with aclosing(self._watch.top_up(id_, check)) as states:
            async for top_up in states:
                yield top_up

    async def _owner_id(self, caller: Principal, account_id: UUID, currency: str) -> str:
        """Whose account it is, which the caller may pay into."""
        account = await self._bank.get_account(account_id)
        if not (caller.can_write_all or account.owner_id == caller.subject):
            raise AccountNotFound(str(account_id))
        check_account(account, currency)
        return account.owner_id

    async def _answer(self, top_up: TopUp) -> TopUp:
        """The top-up as soon as nothing is left to do, or as it is when the time for an answer has come."""
        left = (
            request_context.current_request.get().remaining(self._terms.answer_seconds + _MARGIN_SECONDS)
            - _MARGIN_SECONDS
        )
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(max(0.0, left)):
                top_up = await self._saga.paused(top_up)
                if top_up.is_under_way:  # a pause, or another's
                    async with aclosing(self._watch.top_up(top_up.id)) as states:
                        async for top_up in states:
                            if not top_up.is_under_way:
                                break
        return top_up


def _may_see(caller: Principal, top_up: TopUp) -> bool:
    return caller.can_read_all or top_up.owner_id == caller.subject
