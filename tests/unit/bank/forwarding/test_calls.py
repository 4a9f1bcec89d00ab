"""Transfers of concurrent callers that the client sends to the bank together: which, when, and with what."""

import asyncio
from collections import Counter
from collections.abc import Callable

import grpc
import pytest

from kit.auth.principal import MAX_TOKEN_BYTES
from kit.rpc import server
from protos.wallet.bank.v1 import bank_pb2
from subgraphs.bank.client import BankClient, Receipt, forwarding
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
from tests.unit.bank.forwarding.held_bank import serve_held_bank
from wallet.errors import AccountNotFound, DeadlineExceeded, RateLimited, Unavailable


class TestWhatIsSentTogether:
    async def test_lone_transfer_is_sent_at_once_by_transfer_money(self, callers: Callers) -> None:
        for _ in range(3):
            (task,) = callers.start("alice")
            call = await callers.bank.next_call()
            assert not call.items
            assert call.metadata["authorization"] == "Bearer token of alice"
            call.complete()
            assert (await task).posting.version == call.keys[0]

    async def test_transfers_that_arrive_at_one_time_are_sent_together(self, callers: Callers) -> None:
        tasks = callers.start("a", "b", "c")
        call = await callers.bank.next_call()
        assert call.keys == [1, 2, 3]
        call.complete()
        await asyncio.gather(*tasks)

    async def test_transfers_that_never_stop_arriving_do_not_delay_each_other(self, callers: Callers) -> None:
        tasks: list[asyncio.Task[Receipt]] = []
        first = asyncio.create_task(callers.bank.next_call())
        while not first.done():
            tasks += callers.start(f"caller {len(tasks)}")
            await asyncio.sleep(0)
        assert len(first.result().keys) <= forwarding._MAX_TURNS
        first.result().complete()

        async def complete_all() -> None:
            while True:
                (await callers.bank.next_call()).complete()

        completing = asyncio.create_task(complete_all())
        await asyncio.gather(*tasks)
        completing.cancel()

    async def test_second_call_is_as_large_as_the_first(self, callers: Callers) -> None:
        tasks = callers.start("a", "b", "c")
        calls = [await callers.bank.next_call()]
        tasks += await callers.wait_in_queue("d", "e")
        tasks += await callers.wait_in_queue("f")
        calls.append(await callers.bank.next_call())
        assert [call.keys for call in calls] == [[1, 2, 3], [4, 5, 6]]
        for call in calls:
            call.complete()
        await asyncio.gather(*tasks)

    async def test_smaller_second_call_is_sent_when_the_first_takes_long(
        self, callers: Callers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarding, "_COLLECT_SECONDS", 0)
        tasks = callers.start("a", "b", "c")
        calls = [await callers.bank.next_call()]
        tasks += callers.start("d")
        calls.append(await callers.bank.next_call())
        assert [call.keys for call in calls] == [[1, 2, 3], [4]]
        monkeypatch.setattr(forwarding, "_COLLECT_SECONDS", 1_800)
        for call in calls:
            call.complete()
        await asyncio.gather(*tasks)
        await assert_calls_at_once(callers, 2)  # what a call no longer expects is not subtracted twice

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
        with monkeypatch.context() as patch:
            patch.setattr(forwarding, "_COLLECT_SECONDS", 0)
            patch.setattr(forwarding, "_LATE_SECONDS", 0)  # late in the next turn of the event loop
            occupants, calls = await callers.occupy(3)
        waiting = await callers.wait_in_queue("a", "b")
        calls.append(await callers.bank.next_call())
        assert calls[-1].keys == [4, 5]
        for call in calls:
            call.complete()
        await asyncio.gather(*occupants, *waiting)
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


class TestLimits:
    async def test_limit_of_one_caller_counts_items(self, connect: Callable[..., Callers]) -> None:
        callers = connect()  # 250 calls for each caller
        occupants, calls = [], []
        for _ in range(2):
            occupants += callers.start("alice")
            calls.append(await callers.bank.next_call())
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
