"""What all scenarios have in common: customers of the run, when they ask, and a history of what they were told."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Final, TypeAlias
from uuid import UUID, uuid4

import gevent
from locust import FastHttpUser, task

from loadtests import account_selection
from loadtests.arrivals import Arrivals, AtOnce
from loadtests.history.calls import Answer, Body, Key, Nothing, Unknown, Wish
from loadtests.history.log import Line, Log
from loadtests.plan import Customer, Plan

Read: TypeAlias = Callable[[int, Mapping[str, Any]], Answer | None]
"""What a status and its JSON say; without a wish None, or what went wrong."""

_TWICE: Final = 0.05  # of transfers are asked for twice at once, as by a thumb that slips
_CONTRADICTS: Final = 0.01  # are asked for with another amount, too
_ATTEMPTS: Final = 5
_FIRST_PAUSE_SECONDS: Final = 0.2  # before asking again; doubles


class Person(FastHttpUser):
    """Somebody with a phone: of one customer after the other, for what is measured is the system and not the phones.

    `plan`, `log` and `arrivals` are set by the locustfile, once a process.
    """

    abstract = True
    plan: ClassVar[Plan]
    log: ClassVar[Log]
    arrivals: ClassVar[Arrivals] = AtOnce()
    connection_timeout = network_timeout = 10.0

    def on_start(self) -> None:
        """Nobody's chance is another's."""
        self.chance = random.Random(uuid4().int)  # noqa: S311  chance, no secret
        self.due = 0.0
        pairs = account_selection.BY_NAME[self.plan.choice]
        self._pairs: Iterator[tuple[int, int]] = pairs(self.chance, len(self.plan.customers))

    @task
    def turn(self) -> None:
        """Waits until something is due, and does it."""
        self.due = self.arrivals.next()
        self.act()

    def act(self) -> None:
        """What a person does at once."""
        raise NotImplementedError

    def anybody(self) -> Customer:
        """A customer at random."""
        return self.chance.choice(self.plan.customers)

    def pair(self) -> tuple[Customer, Customer]:
        """Who pays whom next."""
        sender, recipient = next(self._pairs)
        return self.plan.customers[sender], self.plan.customers[recipient]

    def request(
        self, name: str, method: str, path: str, who: Customer, read: Read, wish: Wish | None = None, json: Any = None
    ) -> Answer | None:
        """One HTTP request in a customer's name, with the wish's key if there is a wish. `name` is for reports."""
        headers = {"Authorization": f"Bearer {who.token}", "Accept": "application/json"}
        if wish:
            headers["Idempotency-Key"] = wish.key.key

        def send() -> Answer | None:
            asked = self.client.request(method, path, name=name, headers=headers, json=json, catch_response=True)
            with asked as response:
                answer = read(response.status_code, _json(response))
                if isinstance(answer, Unknown | Nothing):
                    response.failure(answer.reason)
                else:
                    response.success()
            return answer

        return self.record(name, send, wish)

    def post(
        self,
        name: str,
        path: str,
        body: Any,
        who: Customer,
        wish: Wish,
        read: Callable[[Wish, int, Mapping[str, Any]], Answer],
    ) -> Answer | None:
        """The same for a wish."""
        return self.request(name, "POST", path, who, partial(read, wish), wish, body)

    def record(self, name: str, send: Callable[[], Answer | None], wish: Wish | None = None) -> Answer | None:
        """Sends, and writes down what was asked and what came of it."""
        due, self.due = self.due, 0.0  # what is asked again was due when it is asked
        answer: Answer | None = Unknown("CANCELLED") if wish else None
        began = time.monotonic()
        try:
            answer = send()
        finally:
            ended = time.monotonic()
            line = Line(name=name, due=due or began, began=began, ended=ended, wish=wish)
            error = answer.reason if isinstance(answer, Unknown | Nothing) else ""
            self.log.write(replace(line, error=error, answer=answer if wish else None))
        return answer


class Payer(Person):
    """Moves money as clients do: now and then twice at once, and always until they know, by the same key."""

    abstract = True

    def transfer(self, wish: Wish, sender: Customer) -> Answer | None:
        """Asks once, by the scenario's own road."""
        raise NotImplementedError

    def act(self) -> None:
        """One transfer."""
        sender, recipient = self.pair()
        amount = Decimal(self.chance.randint(1, 2_000)) / 100
        body = Body(UUID(sender.account), UUID(recipient.account), amount)
        wish = Wish(Key(sender.principal, "transfer", uuid4().hex), body, sender.subject)
        again = [wish] if self.chance.random() < _TWICE else []
        if self.chance.random() < _CONTRADICTS:
            again.append(replace(wish, body=replace(body, amount=amount + 1)))
        beside = [gevent.spawn(self.insist, each, sender) for each in again]
        self.insist(wish, sender)
        gevent.joinall(beside)

    def insist(self, wish: Wish, sender: Customer) -> None:
        """Asks with the same key, later and later, until the outcome is known, or it is enough."""
        for attempt in range(_ATTEMPTS):
            if not isinstance(self.transfer(wish, sender), Unknown | Nothing):
                return
            gevent.sleep(self.chance.uniform(0.5, 1.0) * _FIRST_PAUSE_SECONDS * 2**attempt)


def _json(response: Any) -> Mapping[str, Any]:
    """What the answer says; nothing if it is none of ours."""
    try:
        told = response.json()
    except (ValueError, TypeError, AttributeError):
        return {}
    return told if isinstance(told, dict) else {}
