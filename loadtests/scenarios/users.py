"""Base classes of the Locust users: they act for customers of the run and record every request with its response."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias
from uuid import UUID, uuid4

import gevent
from locust import FastHttpUser, task
from locust.runners import WorkerRunner

from kit.runtime.backoff import Backoff
from loadtests.arrivals import Arrivals, ClosedLoop
from loadtests.choices import TransferChoice, UserChoices
from loadtests.greenlets import run_concurrently
from loadtests.history.calls import Answer, IdempotencyKey, LedgerRequest, NoEffect, RequestBody, UnknownOutcome
from loadtests.history.storage import HistoryWriter, RequestRecord
from loadtests.plan import Customer, Plan

ParseAnswer: TypeAlias = Callable[[int, Mapping[str, Any], Mapping[str, str]], Answer | None]
"""Converts an HTTP status, a JSON body and headers to an answer. For a read, None means success."""

ATTEMPTS: Final = 5
"""Maximum number of attempts to learn the outcome of a request."""

_FIRST_RETRY_SECONDS: Final = 0.2
_LONGEST_RETRY_SECONDS: Final = 3.2

_numbers: Final[defaultdict[str, Iterator[int]]] = defaultdict(count)
"""Numbers of the next users of this process, by class."""


class WalletUser(FastHttpUser):
    """Locust user that selects a customer of the run for each task. `choices` makes all its random choices.

    It uses one HTTP client for all customers, because the test measures the system, not the clients. The locustfile
    sets `plan`, `folder`, `writer` and `arrivals`, once per run and process.
    """

    abstract = True
    plan: ClassVar[Plan]
    folder: ClassVar[Path]
    writer: ClassVar[HistoryWriter]
    arrivals: ClassVar[Arrivals] = ClosedLoop()
    connection_timeout = network_timeout = 10.0

    def on_start(self) -> None:
        """Give the user its own choices.

        Users of one class are numbered in the order of their start. The number is part of the seed of the choices.
        """
        runner, scenario = self.environment.runner, type(self).__name__
        process = runner.worker_index if isinstance(runner, WorkerRunner) else 0
        self.choices = UserChoices(self.plan, scenario, process, next(_numbers[scenario]))
        self.due = 0.0

    @task
    def run_next(self) -> None:
        """Wait until the next request is due, then call `act`."""
        self.due = self.arrivals.wait()
        self.act()

    def act(self) -> None:
        """Perform one unit of work of the scenario."""
        raise NotImplementedError

    def send_http(
        self,
        name: str,
        method: str,
        path: str,
        customer: Customer,
        parse: ParseAnswer,
        request: LedgerRequest | None = None,
        json: Any = None,
    ) -> Answer | None:
        """Send and record one HTTP request.

        Args:
            name: name in reports.
            method: HTTP method.
            path: path and query.
            customer: the request carries the token of this customer.
            parse: converts the response.
            request: request to the ledger; None for a read. Its key is sent as `Idempotency-Key`, sometimes quoted.
            json: JSON body.
        """
        headers = {"Authorization": f"Bearer {customer.token}", "Accept": "application/json"}
        if request:
            key = request.key.key
            headers["Idempotency-Key"] = f'"{key}"' if self.choices.quotes_key() else key

        def send() -> Answer | None:
            sending = self.client.request(method, path, name=name, headers=headers, json=json, catch_response=True)
            with sending as response:
                answer = parse(response.status_code, json_object(response), response.headers or {})
                if isinstance(answer, UnknownOutcome | NoEffect):
                    response.failure(answer.reason)
                else:
                    response.success()
            return answer

        return self.record(name, send, request)

    def post_ledger_request(
        self,
        name: str,
        path: str,
        body: Any,
        customer: Customer,
        request: LedgerRequest,
        parse: Callable[[LedgerRequest, int, Mapping[str, Any], Mapping[str, str]], Answer],
    ) -> Answer | None:
        """Send and record a POST that changes the ledger."""
        return self.send_http(name, "POST", path, customer, partial(parse, request), request, body)

    def record(
        self, name: str, send: Callable[[], Answer | None], request: LedgerRequest | None = None
    ) -> Answer | None:
        """Call `send`, and record the request with its times and its response."""
        return self.record_all(name, lambda: [send()], [request])[0]

    def record_all(
        self, name: str, send: Callable[[], Sequence[Answer | None]], requests: Sequence[LedgerRequest | None]
    ) -> Sequence[Answer | None]:
        """Call `send`, which sends several requests in one call. Record each with the times of the call.

        Args:
            name: name of each request in reports.
            send: returns the answers, in the order of the requests.
            requests: requests to the ledger; None for a read.
        """
        due, self.due = self.due, 0.0  # only the first call has the arrival's due time; a retry is due when sent
        answers: Sequence[Answer | None] = [UnknownOutcome("CANCELLED") if each else None for each in requests]
        began = time.monotonic()
        try:
            answers = send()
        finally:
            ended = time.monotonic()
            for request, answer in zip(requests, answers, strict=True):
                record = RequestRecord(name=name, due=due or began, began=began, ended=ended, request=request)
                error = answer.reason if isinstance(answer, UnknownOutcome | NoEffect) else ""
                self.writer.write(replace(record, error=error, answer=answer if request else None))
        return answers


class TransferUser(WalletUser):
    """Locust user that transfers money.

    It sometimes sends duplicates and conflicting requests, and retries with the same key until the outcome is known.
    """

    abstract = True

    def transfer(self, request: LedgerRequest, sender: Customer) -> Answer | None:
        """Send the request once, over the API of the scenario."""
        raise NotImplementedError

    def act(self) -> None:
        """Make one transfer."""
        choice = self.choices.next_transfer()
        sender = choice.sender
        request = transfer_request(choice, sender, choice.recipient)
        body = request.body
        others = [request] if choice.is_duplicated else []
        if choice.is_contradicted:
            others.append(replace(request, body=replace(body, amount=choice.amount + 1)))
        with run_concurrently(partial(self.retry_until_known, each, sender) for each in others):
            self.retry_until_known(request, sender)

    def retry_until_known(self, request: LedgerRequest, sender: Customer) -> None:
        """Send the request with the same key until its outcome is known, at most five times."""
        backoff = retry_backoff()
        for _ in range(ATTEMPTS):
            if not isinstance(self.transfer(request, sender), UnknownOutcome | NoEffect):
                return
            gevent.sleep(backoff.next_delay())


def retry_backoff() -> Backoff:
    """Return the pauses between attempts."""
    return Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)


def transfer_request(choice: TransferChoice, sender: Customer, recipient: Customer) -> LedgerRequest:
    """Return the request for a chosen transfer, with a new key."""
    body = RequestBody(
        UUID(sender.account),
        UUID(recipient.account),
        choice.amount,
        description=choice.description,
        reference=choice.reference,
        is_reference_unique=choice.is_reference_unique,
    )
    return LedgerRequest(IdempotencyKey(sender.principal, "transfer", uuid4().hex), body, sender.subject)


def json_object(response: Any) -> Mapping[str, Any]:
    """Return the JSON object in the response, or an empty one if the body is something else."""
    try:
        body = response.json()
    except (ValueError, TypeError, AttributeError):
        return {}
    return body if isinstance(body, dict) else {}
