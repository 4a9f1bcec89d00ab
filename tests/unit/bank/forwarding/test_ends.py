"""What the results and the end of a call mean for the transfers that have been sent together."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from kit.rpc.request_context import RequestContext, current_request
from subgraphs.bank.client import BankClient, forwarding
from tests.clock import ManualClock
from tests.unit.bank.forwarding.callers import (
    GATEWAY_TOKEN,
    RECIPIENT,
    SENDER,
    WITH_KEY,
    Callers,
    assert_calls_at_once,
    errors_of,
)
from tests.unit.bank.forwarding.held_bank import Result, receipt, serve_held_bank
from wallet.errors import (
    DeadlineExceeded,
    IdempotencyConflict,
    InsufficientFunds,
    ResourceExhausted,
    Unavailable,
    WalletError,
)


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
        occupants = callers.start("occupant", "occupant")
        held = await callers.bank.next_call()
        tasks += await callers.wait_in_queue("c", "d")
        batch.end(grpc.StatusCode.UNIMPLEMENTED)
        calls = [await callers.bank.next_call() for _ in tasks]
        assert sorted(call.keys for call in calls) == [[3], [4], [7], [8]]
        for call in (held, *calls):
            call.complete()
        await asyncio.gather(*occupants, *tasks)

    async def test_calls_that_are_refused_at_once_are_logged_once(self, callers: Callers) -> None:
        tasks, first = await callers.send_together("a", "b")
        tasks += callers.start("occupant", "occupant")
        occupants = await callers.bank.next_call()
        tasks += await callers.wait_in_queue("c", "d")
        occupants.complete()
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
