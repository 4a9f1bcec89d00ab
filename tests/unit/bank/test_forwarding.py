"""Transfers of concurrent callers, which the client sends to the bank together."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from itertools import count
from typing import Any, Final
from uuid import UUID

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from kit.auth.principal import MAX_TOKEN_BYTES, Principal
from kit.rpc import server
from kit.rpc.channel import ClientLimits
from kit.rpc.request_context import RequestContext, current_request
from kit.telemetry.tracing import TraceContext
from protos.wallet.bank.v1 import bank_pb2
from subgraphs.bank.client import BankClient, Receipt, forwarding
from tests.clock import ManualClock
from tests.unit.bank.held_bank import HeldBank, HeldCall, Result, receipt, serve_held_bank
from wallet.errors import (
    AccountNotFound,
    DeadlineExceeded,
    IdempotencyConflict,
    InsufficientFunds,
    RateLimited,
    ResourceExhausted,
    Unavailable,
    WalletError,
)
from wallet.money import Money

GATEWAY_TOKEN: Final = "the gateway's token"
SENDER: Final = UUID(int=1)
RECIPIENT: Final = UUID(int=2)
WITH_KEY: Final = "try again with the same idempotency key"
Task = asyncio.Task[Receipt]


class Callers:
    """Callers of the bank's client.

    Attributes:
        bank: the fake bank.
        client: the client under test.
        clock: clock of the client's forwarding, which stands still.
    """

    def __init__(self, bank: HeldBank, client: BankClient, clock: ManualClock) -> None:
        self.bank = bank
        self.client = client
        self.clock = clock
        self._keys = count(1)

    def start(self, *names: str, seconds: float | None = None) -> list[Task]:
        """Start a transfer of each caller. The n-th transfer of a test has the idempotency key n.

        Args:
            names: subjects of the callers; an empty name is an anonymous caller.
            seconds: time-out of the requests; None for that of the client.
        """
        return [self._start(name, seconds) for name in names]

    def _start(self, name: str, seconds: float | None) -> Task:
        key = str(next(self._keys))
        deadline = None if seconds is None else time.monotonic() + seconds
        trace = TraceContext(f"{int(key):032x}", "00000000000000aa", 0, "vendor=1")
        context = RequestContext(f"request-{key}", deadline=deadline, trace=trace)
        if name:
            context = context.with_principal(Principal("https://users.test", name, False, 0.0), f"token of {name}")
        reset = current_request.set(context)
        try:
            return asyncio.create_task(self.client.transfer(SENDER, RECIPIENT, Money.parse("1", "RUB"), key))
        finally:
            current_request.reset(reset)

    async def occupy(self, size: int = 2) -> tuple[list[Task], list[HeldCall]]:
        """Start transfers until the bank has enough calls: further transfers wait. Each is sent alone, and at once."""
        tasks, calls = [], []
        for _ in range(size):
            tasks += self.start("occupant")
            calls.append(await self.bank.next_call())
            assert not calls[-1].items
        return tasks, calls

    async def wait_in_queue(self, *names: str, seconds: float | None = None) -> list[Task]:
        """Start transfers, which the client keeps waiting."""
        tasks = self.start(*names, seconds=seconds)
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        return tasks

    async def send_together(self, *names: str) -> tuple[list[Task], HeldCall]:
        """Return transfers that have been sent together, and their call. No other call is on its way."""
        occupants, calls = await self.occupy()
        tasks = await self.wait_in_queue(*names)
        calls[0].complete()
        batch = await self.bank.next_call()
        calls[1].complete()
        await asyncio.gather(*occupants)
        assert [each.token for each in batch.items] == [f"token of {name}" for name in names]
        return tasks, batch


@pytest.fixture(autouse=True)
def no_late_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine makes no call late."""
    monkeypatch.setattr(forwarding, "_LATE_SECONDS", 3_600)


@pytest.fixture
async def connect(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Callers]]:
    """Function that returns callers of a new client with the given limits."""
    clock = ManualClock()
    monkeypatch.setattr(forwarding, "time", clock)
    async with serve_held_bank() as (bank, stub, _):

        def connect(gateway_token: Callable[[], str] = lambda: GATEWAY_TOKEN, **limits: Any) -> Callers:
            return Callers(bank, BankClient(stub, ClientLimits(**limits), gateway_token), clock)

        yield connect


@pytest.fixture
def callers(connect: Callable[..., Callers]) -> Callers:
    return connect()


async def errors_of(tasks: Sequence[Task]) -> list[WalletError | None]:
    """Return the error of each transfer; None for a receipt."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for each in results:
        assert isinstance(each, Receipt | WalletError)
    return [each if isinstance(each, WalletError) else None for each in results]


async def assert_calls_at_once(callers: Callers, calls_at_once: int) -> None:
    """Assert that as many calls are on their way at once, and that further transfers wait and are sent together."""
    occupants, calls = await callers.occupy(calls_at_once)
    waiting = await callers.wait_in_queue("a", "b")
    calls[0].complete()
    batch = await callers.bank.next_call()
    assert len(batch.items) == 2
    batch.complete()
    for call in calls[1:]:
        call.complete()
    await asyncio.gather(*occupants, *waiting)


class TestWhatIsSentTogether:
    async def test_lone_transfer_is_sent_at_once_by_transfer_money(self, callers: Callers) -> None:
        for _ in range(3):
            (task,) = callers.start("alice")
            call = await callers.bank.next_call()
            assert not call.items
            assert call.metadata["authorization"] == "Bearer token of alice"
            call.complete()
            assert (await task).posting.version == call.keys[0]

    async def test_waiting_transfers_are_sent_together_when_a_call_ends(self, callers: Callers) -> None:
        occupants, calls = await callers.occupy()
        waiting = await callers.wait_in_queue("a", "b", "c")
        calls[1].complete()
        batch = await callers.bank.next_call()
        assert batch.keys == [3, 4, 5]
        later = await callers.wait_in_queue("d", "e")
        batch.complete()
        assert [receipt.posting.version for receipt in await asyncio.gather(*waiting)] == [3, 4, 5]
        second = await callers.bank.next_call()
        assert second.keys == [6, 7]
        second.complete()
        calls[0].complete()
        await asyncio.gather(*occupants, *later)

    async def test_failed_call_makes_room_for_waiting_transfers(self, callers: Callers) -> None:
        occupants, calls = await callers.occupy()
        waiting = await callers.wait_in_queue("a", "b")
        calls[0].end(grpc.StatusCode.UNAVAILABLE)
        (await callers.bank.next_call()).complete()
        calls[1].complete()
        assert [isinstance(each, Unavailable) for each in await errors_of([*occupants, *waiting])] == [
            True,
            False,
            False,
            False,
        ]

    async def test_transfer_that_has_waited_alone_is_sent_by_transfer_money(self, callers: Callers) -> None:
        occupants, calls = await callers.occupy()
        waiting = await callers.wait_in_queue("alice")
        calls[0].complete()
        call = await callers.bank.next_call()
        assert not call.items
        assert call.metadata["authorization"] == "Bearer token of alice"
        call.end(grpc.StatusCode.UNAVAILABLE)
        calls[1].complete()
        await asyncio.gather(*occupants)
        (error,) = await errors_of(waiting)
        assert isinstance(error, Unavailable)
        assert WITH_KEY in error.message

    async def test_two_calls_are_on_their_way_to_each_known_process(self, callers: Callers) -> None:
        await assert_calls_at_once(callers, 2)
        for process_id in ("one", "two"):
            tasks, batch = await callers.send_together("a", "b")
            batch.complete(process_id)
            await asyncio.gather(*tasks)
        await assert_calls_at_once(callers, 4)

    async def test_process_without_a_response_is_forgotten(self, callers: Callers) -> None:
        for process_id in ("one", "two"):
            tasks, batch = await callers.send_together("a", "b")
            batch.complete(process_id)
            await asyncio.gather(*tasks)
        callers.clock.advance(forwarding._PROCESS_KNOWN_SECONDS + 1)
        occupants, calls = await callers.occupy(4)
        waiting = await callers.wait_in_queue("a", "b")
        calls[0].complete()
        (await callers.bank.next_call()).complete("two")
        for call in calls[1:]:
            call.complete()
        await asyncio.gather(*occupants, *waiting)
        await assert_calls_at_once(callers, 2)

    async def test_late_calls_keep_no_transfers_waiting(
        self, callers: Callers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarding, "_LATE_SECONDS", 0)  # late in the next turn of the event loop
        tasks = callers.start("a", "b", "c", "d")  # all start in the same turn
        calls = [await callers.bank.next_call() for _ in range(3)]
        assert sorted(call.keys for call in calls) == [[1], [2], [3, 4]]
        for call in calls:
            call.complete()
        await asyncio.gather(*tasks)
        monkeypatch.setattr(forwarding, "_LATE_SECONDS", 3_600)
        await assert_calls_at_once(callers, 2)  # a late call that ends is not counted twice

    async def test_one_caller_has_at_most_half_of_a_call(
        self, callers: Callers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarding, "_MAX_ITEMS", 4)
        monkeypatch.setattr(forwarding, "_MAX_ITEMS_PER_CALLER", 2)
        occupants, calls = await callers.occupy()
        waiting = await callers.wait_in_queue(*"aaaaabcd")
        calls[0].complete()
        batches = []
        for _ in range(3):
            batches.append(await callers.bank.next_call())
            batches[-1].complete()
        calls[1].complete()
        await asyncio.gather(*occupants, *waiting)
        assert [batch.keys for batch in batches] == [[3, 4, 8, 9], [5, 6, 10], [7]]

    async def test_call_has_a_limited_number_of_transfers(
        self, callers: Callers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarding, "_MAX_ITEMS", 4)
        occupants, calls = await callers.occupy()
        waiting = await callers.wait_in_queue(*"abcdef")
        calls[0].complete()
        for expected in ([3, 4, 5, 6], [7, 8]):
            batch = await callers.bank.next_call()
            assert batch.keys == expected
            batch.complete()
        calls[1].complete()
        await asyncio.gather(*occupants, *waiting)

    def test_largest_call_fits_into_a_message(self) -> None:
        item = bank_pb2.ForwardTransfersRequest.Item(
            transfer=bank_pb2.TransferMoneyRequest(
                sender_id=str(SENDER),
                recipient_id=str(RECIPIENT),
                idempotency_key="k" * 255,
                raw_idempotency_key="k" * 1_024,
            ),
            token="t" * MAX_TOKEN_BYTES,
            timeout_ms=2**31 - 1,
            request_id="r" * 64,
            traceparent="0" * 55,
            tracestate="s" * 512,
        )
        largest = bank_pb2.ForwardTransfersRequest(items=[item] * forwarding._MAX_ITEMS)
        assert largest.ByteSize() < dict(server._OPTIONS)["grpc.max_receive_message_length"]
        assert forwarding._MAX_ITEMS_PER_CALLER * 2 <= forwarding._MAX_ITEMS

    async def test_anonymous_transfer_is_always_sent_alone(self, callers: Callers) -> None:
        occupants, calls = await callers.occupy()
        tasks = callers.start("", "")
        for _ in tasks:
            call = await callers.bank.next_call()
            assert not call.items
            assert "authorization" not in call.metadata
            call.complete()
        for call in calls:
            call.complete()
        await asyncio.gather(*occupants, *tasks)

    async def test_client_without_a_gateway_token_sends_every_transfer_alone(self) -> None:
        async with serve_held_bank() as (bank, stub, _):
            callers = Callers(bank, BankClient(stub), ManualClock())
            tasks = callers.start("a", "b", "c", "d")
            for _ in tasks:
                call = await bank.next_call()
                assert not call.items
                call.complete()
            await asyncio.gather(*tasks)


class TestContentOfACall:
    async def test_each_item_has_the_data_of_its_own_caller(self, callers: Callers) -> None:
        tasks, batch = await callers.send_together("alice", "bob")
        for key, name, item in zip((3, 4), ("alice", "bob"), batch.items, strict=True):
            assert item.transfer.idempotency_key == str(key)
            assert item.token == f"token of {name}"
            assert item.request_id == f"request-{key}"
            assert item.traceparent == f"00-{key:032x}-00000000000000aa-00"
            assert item.tracestate == "vendor=1"
            assert item.timeout_ms == 5_000
        batch.complete()
        await asyncio.gather(*tasks)

    async def test_call_has_the_gateways_token_and_no_metadata_of_a_caller(self, callers: Callers) -> None:
        tasks, batch = await callers.send_together("alice", "bob")
        assert batch.metadata["authorization"] == f"Bearer {GATEWAY_TOKEN}"
        assert not batch.metadata.keys() & {"x-request-id", "traceparent", "tracestate"}
        assert GATEWAY_TOKEN not in str(batch.items)
        batch.complete()
        await asyncio.gather(*tasks)

    async def test_time_spent_waiting_counts_for_the_timeout_of_an_item(self, callers: Callers) -> None:
        occupants, calls = await callers.occupy()
        waiting = await callers.wait_in_queue("a")
        callers.clock.advance(2)
        waiting += await callers.wait_in_queue("b")
        calls[0].complete()
        batch = await callers.bank.next_call()
        assert [item.timeout_ms for item in batch.items] == [3_000, 5_000]
        batch.complete()
        calls[1].complete()
        await asyncio.gather(*occupants, *waiting)

    async def test_timeout_of_the_call_is_that_of_its_last_item(self, callers: Callers) -> None:
        occupants, calls = await callers.occupy()
        waiting = await callers.wait_in_queue("a")
        callers.clock.advance(60)
        waiting += await callers.wait_in_queue("b")
        calls[0].complete()
        batch = await callers.bank.next_call()
        assert batch.items[0].timeout_ms == 1
        assert 3 < batch.remaining <= 6  # gRPC rounds it up
        batch.complete()
        calls[1].complete()
        await asyncio.gather(*occupants, *waiting)


class TestCallersThatLeave:
    async def test_transfer_whose_caller_leaves_while_it_waits_is_never_sent(self, callers: Callers) -> None:
        occupants, calls = await callers.occupy()
        first, left, last = await callers.wait_in_queue("a", "b", "c")
        left.cancel()
        await asyncio.wait([left])
        calls[0].complete()
        batch = await callers.bank.next_call()
        assert batch.keys == [3, 5]
        batch.complete()
        calls[1].complete()
        await asyncio.gather(*occupants, first, last)
        assert left.cancelled()
        assert callers.bank.received.empty()

    async def test_nothing_is_sent_when_all_waiting_callers_have_left(self, callers: Callers) -> None:
        occupants, calls = await callers.occupy()
        waiting = await callers.wait_in_queue("a", "b")
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        for call in calls:
            call.complete()
        await asyncio.gather(*occupants)
        await assert_calls_at_once(callers, 2)
        assert callers.bank.received.empty()

    async def test_call_is_cancelled_only_when_all_its_callers_have_left(self, callers: Callers) -> None:
        (first, second, third), batch = await callers.send_together("a", "b", "c")
        first.cancel()
        await asyncio.wait([first])
        batch.respond(1)
        await second
        assert not batch.cancelled.is_set()
        third.cancel()
        await asyncio.wait([third])
        async with asyncio.timeout(10):
            await batch.cancelled.wait()
        await assert_calls_at_once(callers, 2)

    async def test_call_of_a_transfer_that_has_waited_alone_is_cancelled_with_its_caller(
        self, callers: Callers
    ) -> None:
        occupants, calls = await callers.occupy()
        (alone,) = await callers.wait_in_queue("alice")
        calls[0].complete()
        call = await callers.bank.next_call()
        alone.cancel()
        async with asyncio.timeout(10):
            await call.cancelled.wait()
        calls[1].complete()
        await asyncio.gather(*occupants)

    async def test_timeout_of_one_item_leaves_the_others_alone(self, callers: Callers) -> None:
        occupants, calls = await callers.occupy()
        patient = await callers.wait_in_queue("a", "b")
        impatient = await callers.wait_in_queue("c", seconds=0.2)
        calls[0].complete()
        batch = await callers.bank.next_call()
        (error,) = await errors_of(impatient)
        assert isinstance(error, DeadlineExceeded)
        assert error.message == f"the bank did not respond in time; {WITH_KEY}"
        assert not batch.cancelled.is_set()
        batch.complete()
        calls[1].complete()
        await asyncio.gather(*occupants, *patient)

    async def test_timeout_of_a_transfer_that_waits_is_an_error_and_it_is_never_sent(self, callers: Callers) -> None:
        occupants, calls = await callers.occupy()
        (error,) = await errors_of(await callers.wait_in_queue("a", seconds=0.05))
        assert isinstance(error, DeadlineExceeded)
        for call in calls:
            call.complete()
        await asyncio.gather(*occupants)
        await assert_calls_at_once(callers, 2)


class TestResults:
    async def test_results_reach_their_callers_in_any_order_before_the_call_ends(self, callers: Callers) -> None:
        (first, second, third), batch = await callers.send_together("a", "b", "c")
        batch.respond(2)
        assert (await third).posting.version == 5
        batch.respond(1)
        assert (await second).posting.version == 4
        assert not first.done()
        batch.respond(0)
        assert (await first).posting.version == 3
        batch.end()

    async def test_error_of_an_item_is_raised_as_its_type(self, callers: Callers) -> None:
        tasks, batch = await callers.send_together("a", "b", "c")
        poor = InsufficientFunds("a1", needed="5.00", available="4.00", currency="RUB")
        batch.refuse(0, poor.as_replay())
        batch.refuse(1, IdempotencyConflict("4"))
        batch.refuse(2, Unavailable("the ledger"))
        batch.end()
        errors = await errors_of(tasks)
        assert errors == [poor, IdempotencyConflict("4"), Unavailable("the ledger", WITH_KEY)]
        assert [each.is_replay for each in errors if each] == [True, False, False]

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            (grpc.StatusCode.OK, Unavailable("the bank", WITH_KEY)),
            (grpc.StatusCode.UNAVAILABLE, Unavailable("the bank", WITH_KEY)),
            (grpc.StatusCode.CANCELLED, Unavailable("the bank", WITH_KEY)),
            (grpc.StatusCode.INTERNAL, Unavailable("the bank", WITH_KEY)),
            (grpc.StatusCode.UNKNOWN, Unavailable("the bank", WITH_KEY)),
            (grpc.StatusCode.NOT_FOUND, Unavailable("the bank", WITH_KEY)),
            (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded("the bank", WITH_KEY)),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted()),
        ],
    )
    async def test_status_of_the_call_decides_about_items_without_a_result(
        self, callers: Callers, code: grpc.StatusCode, expected: WalletError
    ) -> None:
        tasks, batch = await callers.send_together("a", "b")
        batch.end(code)
        assert await errors_of(tasks) == [expected, expected]

    @pytest.mark.parametrize("code", [each for each in grpc.StatusCode if each is not grpc.StatusCode.OK])
    async def test_outcome_is_unknown_when_a_call_ends_after_its_first_result(
        self, callers: Callers, code: grpc.StatusCode
    ) -> None:
        tasks, batch = await callers.send_together("a", "b")
        batch.respond(1)
        await tasks[1]
        batch.end(code)
        (error,) = await errors_of(tasks[:1])
        assert isinstance(error, DeadlineExceeded if code is grpc.StatusCode.DEADLINE_EXCEEDED else Unavailable)
        assert WITH_KEY in error.message
        assert callers.bank.received.empty()

    @pytest.mark.parametrize(
        "wrong",
        [
            "a second result",
            "an index that is too high",
            "a negative index",
            "another sender",
            "another recipient",
            "another amount",
            "neither value nor error",
        ],
    )
    async def test_outcome_is_unknown_after_a_result_that_does_not_fit(
        self, connect: Callable[..., Callers], wrong: str
    ) -> None:
        callers = connect(timeout_seconds=60)  # the time-out does not cancel the call
        tasks, batch = await callers.send_together("a", "b", "c")
        batch.respond(0)
        await tasks[0]
        request = batch.requests[1]
        value = receipt(request)
        other_amount = receipt(request)
        other_amount.transfer.amount.units = 2
        result = {
            "a second result": Result(index=0, value=value),
            "an index that is too high": Result(index=3, value=value),
            "a negative index": Result(index=-1, value=value),
            "another sender": Result(index=1, value=receipt(request, sender_id=str(RECIPIENT))),
            "another recipient": Result(index=1, value=receipt(request, recipient_id=str(SENDER))),
            "another amount": Result(index=1, value=other_amount),
            "neither value nor error": Result(index=1),
        }[wrong]
        with capture_logs() as lines:
            batch.send(result)
            errors = await errors_of(tasks[1:])
        assert errors == [Unavailable("the bank", WITH_KEY)] * 2
        assert [line["event"] for line in lines] == ["wrong result of a forwarded transfer"]
        async with asyncio.timeout(10):
            await batch.cancelled.wait()
        await assert_calls_at_once(callers, 2)

    async def test_unexpected_error_leaves_no_caller_waiting(self, connect: Callable[..., Callers]) -> None:
        def fail() -> str:
            raise OSError("the key is away")

        callers = connect(gateway_token=fail)
        occupants, calls = await callers.occupy()
        waiting = await callers.wait_in_queue("a", "b")
        with capture_logs() as lines:
            calls[0].complete()
            errors = await errors_of(waiting)
        assert errors == [Unavailable("the bank", WITH_KEY)] * 2
        assert [line["event"] for line in lines] == ["unexpected error"]
        calls[1].complete()
        await asyncio.gather(*occupants)
        lone = callers.start("c")
        (await callers.bank.next_call()).complete()
        await asyncio.gather(*lone)

    async def test_closed_channel_leaves_no_caller_waiting(self) -> None:
        async with serve_held_bank() as (bank, stub, channel):
            callers = Callers(bank, BankClient(stub, gateway_token=lambda: GATEWAY_TOKEN), ManualClock())
            tasks, _ = await callers.send_together("a", "b")
            await channel.close()
            assert await errors_of(tasks) == [Unavailable("the bank", WITH_KEY)] * 2

    async def test_log_of_a_call_names_no_caller(self, callers: Callers) -> None:
        seen: list[RequestContext | None] = []

        def record(_: object, __: str, event: MutableMapping[str, Any]) -> str:
            seen.append(current_request.get(None))
            return str(event)

        tasks, batch = await callers.send_together("a", "b")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(forwarding, "log", structlog.wrap_logger(structlog.PrintLogger(), [record]))
            batch.send(Result(index=7))
            await errors_of(tasks)
        assert seen == [None]


async def assert_single_calls(callers: Callers) -> None:
    """Assert that concurrent transfers are all sent alone, and at once."""
    tasks = callers.start("a", "b", "c", "d", "e")
    calls = [await callers.bank.next_call() for _ in tasks]
    assert not any(call.items for call in calls)
    for call in calls:
        call.complete()
    await asyncio.gather(*tasks)


REFUSED: Final = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
)


class TestBankThatTakesTransfersOnlySingly:
    @pytest.mark.parametrize("code", REFUSED)
    async def test_refused_transfers_are_sent_singly_for_ten_seconds(
        self, callers: Callers, code: grpc.StatusCode
    ) -> None:
        tasks, batch = await callers.send_together("a", "b")
        batch.end(code)
        singles = [await callers.bank.next_call() for _ in tasks]
        assert sorted(call.keys for call in singles) == [[3], [4]]
        tokens = {call.keys[0]: call.metadata["authorization"] for call in singles}
        assert tokens == {3: "Bearer token of a", 4: "Bearer token of b"}
        assert {call.metadata["x-request-id"] for call in singles} == {"request-3", "request-4"}
        for call in singles:
            call.complete()
        assert [receipt.posting.version for receipt in await asyncio.gather(*tasks)] == [3, 4]
        callers.clock.advance(9.9)
        await assert_single_calls(callers)
        callers.clock.advance(0.2)
        await assert_calls_at_once(callers, 2)

    async def test_transfers_that_wait_when_a_call_is_refused_are_sent_singly(self, callers: Callers) -> None:
        tasks, batch = await callers.send_together("a", "b")
        occupant = callers.start("occupant")
        held = await callers.bank.next_call()
        tasks += await callers.wait_in_queue("c", "d")
        batch.end(grpc.StatusCode.UNIMPLEMENTED)
        calls = [await callers.bank.next_call() for _ in tasks]
        assert sorted(call.keys for call in calls) == [[3], [4], [6], [7]]
        for call in (held, *calls):
            call.complete()
        await asyncio.gather(*occupant, *tasks)

    async def test_calls_that_are_refused_at_once_are_logged_once(self, callers: Callers) -> None:
        tasks, first = await callers.send_together("a", "b")
        tasks += callers.start("occupant")
        occupant = await callers.bank.next_call()
        tasks += await callers.wait_in_queue("c", "d")
        occupant.complete()
        second = await callers.bank.next_call()
        with capture_logs() as lines:
            first.end(grpc.StatusCode.UNIMPLEMENTED)
            second.end(grpc.StatusCode.UNIMPLEMENTED)
            for _ in range(4):
                (await callers.bank.next_call()).complete()
            await asyncio.gather(*tasks)
        assert [line["code"] for line in lines] == ["UNIMPLEMENTED"]

    async def test_refused_transfer_whose_caller_has_left_is_not_sent(self, callers: Callers) -> None:
        (left, *tasks), batch = await callers.send_together("a", "b", "c")
        left.cancel()
        await asyncio.wait([left])
        batch.end(grpc.StatusCode.UNIMPLEMENTED)
        calls = [await callers.bank.next_call() for _ in tasks]
        assert sorted(call.keys for call in calls) == [[4], [5]]
        calls[0].complete()
        calls[1].complete()
        await asyncio.gather(*tasks)
        assert callers.bank.received.empty()

    async def test_single_call_after_a_refusal_is_cancelled_with_its_caller(self, callers: Callers) -> None:
        tasks, batch = await callers.send_together("a", "b")
        batch.end(grpc.StatusCode.UNIMPLEMENTED)
        calls = {call.keys[0]: call for call in [await callers.bank.next_call() for _ in tasks]}
        tasks[0].cancel()
        async with asyncio.timeout(10):
            await calls[3].cancelled.wait()
        assert not calls[4].cancelled.is_set()
        calls[4].complete()
        await tasks[1]

    async def test_error_of_a_single_call_after_a_refusal_is_the_callers_own(self, callers: Callers) -> None:
        tasks, batch = await callers.send_together("a", "b")
        batch.end(grpc.StatusCode.UNIMPLEMENTED)
        calls = {call.keys[0]: call for call in [await callers.bank.next_call() for _ in tasks]}
        calls[3].end(grpc.StatusCode.UNAVAILABLE)
        calls[4].complete()
        assert await errors_of(tasks) == [Unavailable("the bank", WITH_KEY), None]


class TestLimits:
    async def test_limit_of_one_caller_counts_items(self, connect: Callable[..., Callers]) -> None:
        callers = connect()  # 250 calls for each caller
        occupants = callers.start("alice", "alice")
        calls = [await callers.bank.next_call() for _ in occupants]
        waiting = await callers.wait_in_queue(*["alice"] * 248, "bob")
        (error,) = await errors_of(callers.start("alice"))
        assert error == RateLimited("calls at once", "1")
        calls[0].complete()
        sizes: Counter[str] = Counter()
        while sizes.total() < len(waiting):
            call = await callers.bank.next_call()
            sizes.update(item.token for item in call.items)
            assert max(Counter(item.token for item in call.items).values()) <= 125
            call.complete()
        assert sizes == {"token of alice": 248, "token of bob": 1}
        calls[1].complete()
        await asyncio.gather(*occupants, *waiting)
        (again,) = callers.start("alice")
        (await callers.bank.next_call()).complete()
        await again

    async def test_limit_of_all_calls_counts_items(self, connect: Callable[..., Callers]) -> None:
        callers = connect(max_calls=4)
        occupants, calls = await callers.occupy()
        waiting = await callers.wait_in_queue("a", "b")
        (error,) = await errors_of(callers.start("c"))
        assert error == Unavailable("the bank", WITH_KEY)
        for call in calls:
            call.complete()
        (await callers.bank.next_call()).complete()
        await asyncio.gather(*occupants, *waiting)

    async def test_circuit_counts_late_items(self, connect: Callable[..., Callers]) -> None:
        callers = connect(circuit_failures=3)
        tasks, batch = await callers.send_together("a", "b", "c")
        batch.refuse(0, DeadlineExceeded("the ledger"))
        batch.end(grpc.StatusCode.DEADLINE_EXCEEDED)
        assert all(isinstance(error, DeadlineExceeded) for error in await errors_of(tasks))
        (error,) = await errors_of(callers.start("d"))
        assert error == Unavailable("the bank", WITH_KEY)
        assert callers.bank.received.empty()

    async def test_late_items_of_one_caller_do_not_open_the_circuit_for_others(
        self, connect: Callable[..., Callers]
    ) -> None:
        callers = connect(circuit_failures=3)
        tasks, batch = await callers.send_together("a", "a", "a")
        batch.end(grpc.StatusCode.DEADLINE_EXCEEDED)
        await errors_of(tasks)
        (own,) = await errors_of(callers.start("a"))
        assert own == Unavailable("the bank", WITH_KEY)
        other = callers.start("b")
        (await callers.bank.next_call()).complete()
        await asyncio.gather(*other)

    async def test_error_about_an_account_closes_the_circuit(self, connect: Callable[..., Callers]) -> None:
        callers = connect(circuit_failures=2)
        for _ in range(3):
            tasks, batch = await callers.send_together("a", "b")
            batch.refuse(0, DeadlineExceeded("the ledger"))
            await errors_of(tasks[:1])
            batch.refuse(1, AccountNotFound("a1"))
            batch.end()
            assert await errors_of(tasks[1:]) == [AccountNotFound("a1")]
