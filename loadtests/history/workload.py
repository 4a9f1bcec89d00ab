"""Clients who move money at random, repeat themselves, contradict themselves, and insist on an answer in the end."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, TypeAlias
from uuid import UUID

from loadtests.history.calls import DEPOSITOR, Answer, Body, History, Key, Wish, is_certain
from subgraphs.bank import client
from wallet.errors import WalletError

Ask: TypeAlias = Callable[[Sequence[Wish]], Awaitable[Sequence[client.Receipt | WalletError]]]
"""Calls the bank: one wish by itself, several transfers of one principal in bulk. Answers in their order, or raises."""

_BULK: Final = 6
_AT_ONCE: Final = 50
_LARGEST: Final = 60
_PAUSE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Party:
    """An account to play with; `principal` is what the keys of its owner are scoped by."""

    account_id: UUID
    owner_id: str
    principal: str


class Load:
    """Moves money between a few accounts. Of two loads of one seed, each client asks for the same in the same order."""

    def __init__(self, history: History, ask: Ask, parties: Sequence[Party], clearing: UUID, seed: int) -> None:
        """Args:
        history: gets every call.
        ask: makes the calls.
        parties: at least two, of one currency.
        clearing: where deposits come from.
        seed: of all that is random.
        """
        self._history = history
        self._ask = ask
        self._parties = parties
        self._clearing = clearing
        self._seed = seed

    @asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator[None]:
        """So many clients, each with one thing at a time on its mind, for as long as the body; then they finish it."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(number, stop))
            try:
                yield
            finally:
                stop.set()

    async def resolve(self) -> None:
        """Asks for everything unknown, with the same keys, until it is known. Ends when the bank answers."""
        while left := self._history.unknown():
            await asyncio.gather(*(self._asked([wish]) for wish in left[:_AT_ONCE]))

    async def _client(self, number: int, stop: asyncio.Event) -> None:
        chance = random.Random(f"{self._seed}.{number}")  # noqa: S311  to be repeatable
        for turn in itertools.count():
            if stop.is_set():
                return
            calls = self._turn(chance, f"{number}.{turn}")
            answers = await asyncio.gather(*map(self._asked, calls))
            left = [wishes for wishes, told in zip(calls, answers, strict=True) if not all(map(is_certain, told))]
            if left:
                await asyncio.sleep(chance.uniform(0, _PAUSE_SECONDS))  # the bank is away: not in a tight loop
                await self._asked(chance.choice(left))

    def _turn(self, chance: random.Random, name: str) -> list[list[Wish]]:
        """What to ask for at once. Half of it twice, and now and then something else with the same key."""
        kind = chance.choices(("transfer", "deposit", "bulk"), (6, 1, 2))[0]
        if kind == "deposit":
            wishes = [self._deposit(chance, name)]
        else:
            sender, size = chance.choice(self._parties), chance.randint(2, _BULK) if kind == "bulk" else 1
            wishes = [self._transfer(chance, sender, f"{name}.{item}") for item in range(size)]
        calls = [wishes]
        if chance.random() < 0.5:  # noqa: PLR2004
            again = chance.sample(wishes, chance.randint(1, len(wishes)))
            calls += [again] if chance.random() < 0.5 else [[wish] for wish in again]  # noqa: PLR2004
        if chance.random() < 0.1:  # noqa: PLR2004
            wish = chance.choice(wishes)
            calls.append([replace(wish, body=replace(wish.body, amount=wish.body.amount + 1))])
        chance.shuffle(calls)
        return calls

    def _transfer(self, chance: random.Random, sender: Party, key: str) -> Wish:
        """From one account to another one. The owner's word is enough for each of their accounts."""
        recipient = chance.choice([party for party in self._parties if party is not sender])
        body = Body(sender.account_id, recipient.account_id, _amount(chance))
        return Wish(Key(sender.principal, "transfer", key), body, sender.owner_id)

    def _deposit(self, chance: random.Random, key: str) -> Wish:
        body = Body(self._clearing, chance.choice(self._parties).account_id, _amount(chance))
        return Wish(Key(DEPOSITOR, "deposit", key), body, None)

    async def _asked(self, wishes: Sequence[Wish]) -> list[Answer]:
        return await self._history.record(wishes, self._ask(wishes))


def _amount(chance: random.Random) -> Decimal:
    """Kopecks too."""
    return Decimal(chance.randint(1, 100 * _LARGEST)) / 100
