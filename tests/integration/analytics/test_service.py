import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import httpx
import pytest

from kit.auth.principal import Principal, Role
from kit.rpc import request_context
from kit.rpc.status import error_from_rpc
from protos.wallet.analytics.v1 import analytics_pb2, analytics_pb2_grpc
from subgraphs.analytics.client import (
    AnalyticsClient,
    OperationFilter,
    OperationPage,
    OperationPageRequest,
)
from subgraphs.analytics.service import __main__ as main
from subgraphs.analytics.service.application.account_owners import AccountOwners
from subgraphs.analytics.service.application.service import Analytics
from subgraphs.analytics.service.domain import model
from subgraphs.analytics.service.domain.rows import rows_from_event
from tests.integration.analytics.environment import GRACE_SECONDS, AnalyticsEnvironment, lose_history, run_analytics
from tests.integration.analytics.fake_bank import CLEARING, START
from tests.waiting import until
from wallet.errors import (
    AccountNotFound,
    DeadlineExceeded,
    InvalidInput,
    LedgerRestored,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    WalletError,
)
from wallet.money import Money


@pytest.fixture
async def service(env: AnalyticsEnvironment) -> AsyncIterator[AnalyticsEnvironment]:
    """Environment with a running analytics service."""
    async with run_analytics(env.settings):
        yield env


@pytest.fixture
async def client(service: AnalyticsEnvironment) -> AsyncIterator[AnalyticsClient]:
    async with AnalyticsClient.connect(service.settings.analytics_grpc_listen) as client:
        yield client


async def health(env: AnalyticsEnvironment) -> dict[str, object]:
    async with httpx.AsyncClient(base_url=f"http://{env.settings.analytics_admin_listen}") as http:
        try:
            state: dict[str, object] = (await http.get("/health/ready")).json()
        except httpx.TransportError:
            return {}
        return state


COMPLETENESS: list[tuple[list[int], dict[str, Any], bool]] = [
    ([], {}, False),
    ([1, 2, 3], {}, False),
    ([1, 2, 3, 4], {}, True),
    ([1, 3, 4], {}, False),
    ([1, 3, 4], {"limit": 2}, True),
    ([2, 3, 4], {}, False),
    ([1, 2, 3], {"older_than": 4}, True),
    ([1, 2], {"older_than": 4}, False),
    ([], {"older_than": 1}, True),
    ([2, 3], {"newer_than": 1, "limit": 1}, True),
    ([2, 3], {"newer_than": 1}, False),
    ([3, 4], {"newer_than": 1, "limit": 1}, False),
    ([2, 3, 4], {"newer_than": 1}, True),
    ([1, 2, 3, 4], {"newer_than": 4}, True),
    ([1, 2], {"newer_than": 0, "limit": 1}, True),
    ([2, 3, 4], {"newer_than": 0, "limit": 1}, False),
    ([1, 2, 3, 4], {"filter": OperationFilter(types=())}, True),
    ([1, 2, 3], {"filter": OperationFilter(direction="IN")}, False),
    ([1, 2, 4], {"filter": OperationFilter(direction="IN")}, False),
    ([1, 2, 3, 4], {"filter": OperationFilter(direction="IN")}, True),
    ([1, 3, 4], {"filter": OperationFilter(direction="IN"), "limit": 1}, True),
]
"""Each case is (stored versions, page arguments, whether the page is complete), for an account with four operations.

The operations with versions 1 and 3 are incoming.
"""


class TestOperations:
    async def test_owner_reads_a_published_operation(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        alice = service.bank.open("alice")
        event = service.bank.transfer(CLEARING, alice, "500.00")
        await service.publish(event)
        await service.until_stored(alice, [1])
        with service.as_user("alice"):
            page = await client.list_operations(alice, limit=10)
        (operation,) = page.operations
        assert (operation.id, operation.account_id, operation.counterparty_id) == (event.id, alice, CLEARING)
        assert (operation.account_version, operation.epoch) == (1, "")
        assert (operation.type, operation.direction) == ("TOP_UP", "IN")
        assert (operation.amount, operation.balance_after) == (Money.parse("500.00"), Money.parse("500.00"))
        assert operation.occurred_at == event.occurred_at
        assert (operation.description, operation.reference, operation.metadata) == ("", "", {})
        assert (page.has_older, page.has_newer) == (False, False)

    async def test_pages_and_filters_are_sent_to_the_service(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        alice, bob = service.bank.open("alice"), service.bank.open("bob")
        events = [service.bank.transfer(*((alice, bob) if n % 2 else (bob, alice)), f"{n}.00") for n in range(1, 11)]
        await service.history.insert([row for event in events for row in rows_from_event(event)])
        with service.as_user("alice"):
            older = await client.list_operations(alice, limit=2, older_than=9)
            assert [each.account_version for each in older.operations] == [8, 7]
            assert (older.has_older, older.has_newer) == (True, True)
            newer = await client.list_operations(alice, limit=2, newer_than=8)
            assert [each.account_version for each in newer.operations] == [10, 9]
            filtered = await client.list_operations(
                alice,
                limit=10,
                filter=OperationFilter(
                    types=("TRANSFER",),
                    direction="OUT",
                    counterparty_id=bob,
                    min_amount="3.00",
                    max_amount="7",
                    from_=START,
                    to=START + timedelta(days=1),
                ),
            )
            oldest = await client.list_operations(alice, limit=2, newer_than=0)
            assert [each.account_version for each in oldest.operations] == [2, 1]
            assert (oldest.has_older, oldest.has_newer) == (False, True)
            repeated = OperationFilter(types=("TRANSFER", "TOP_UP") * 10_000)
            assert len((await client.list_operations(alice, limit=10, filter=repeated)).operations) == 10
            nothing = await client.list_operations(alice, limit=2, filter=OperationFilter(types=()))
            assert (nothing.operations, nothing.has_older, nothing.has_newer) == ((), False, False)
        assert [str(each.amount) for each in filtered.operations] == ["7.00", "5.00", "3.00"]

    async def test_page_is_complete_if_it_lacks_no_operation_of_the_ledger(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        for stored, page, complete in COMPLETENESS:
            alice, bob = service.bank.open("alice"), service.bank.open("bob")
            events = [service.bank.transfer(*((alice, bob) if n % 2 else (bob, alice))) for n in range(4)]
            rows = [row for event in events for row in rows_from_event(event)]
            rows = [row for row in rows if row.account_id == bob or row.account_version in stored]
            await service.history.insert(rows)
            with service.as_user("alice"):
                found = await client.list_operations(alice, **({"limit": 10} | page))
            assert found.is_complete is complete, (stored, page)

    async def test_page_is_incomplete_while_the_bank_is_unavailable(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        alice = service.bank.open("alice")
        with service.as_user("alice"):
            assert (await client.list_operations(alice, limit=10)).is_complete
            service.bank.is_down = True
            assert not (await client.list_operations(alice, limit=10)).is_complete

    @pytest.mark.parametrize("outage", [Unavailable("the bank"), DeadlineExceeded("the bank"), ResourceExhausted()])
    async def test_page_with_an_operation_that_the_bank_cannot_confirm_now_is_incomplete(
        self, env: AnalyticsEnvironment, outage: WalletError
    ) -> None:
        class EarlierPosition(AccountOwners):
            """Returns the position (version and epoch) that the account had before its first operation."""

            async def read_positions(
                self, caller: Principal, account_ids: Iterable[UUID]
            ) -> dict[UUID, model.AccountPosition | WalletError | None]:
                return dict.fromkeys(account_ids, model.AccountPosition(0, ""))

        alice, bob = env.bank.open("alice"), env.bank.open("bob")
        await env.history.insert(rows_from_event(env.bank.transfer(alice, bob)))
        env.bank.is_down, env.bank.outage = True, outage
        analytics = Analytics(env.history, env.ledger, env.epochs, env.hub(), EarlierPosition(env.bank_client))
        page = await analytics.list_operations(
            Principal("https://users.test", "alice", is_service=False, expires_at=0),
            model.PageRequest(alice, limit=10),
        )
        assert ([row.account_version for row in page.rows], page.is_complete) == ([1], False)

    async def test_cursor_is_valid_while_the_bank_is_unavailable_and_the_history_is_lost(
        self, env: AnalyticsEnvironment
    ) -> None:
        class UnknownPosition(AccountOwners):
            """Returns no position of the account, as if its owner was cached and the bank was unavailable."""

            async def read_positions(
                self, caller: Principal, account_ids: Iterable[UUID]
            ) -> dict[UUID, model.AccountPosition | WalletError | None]:
                return dict.fromkeys(account_ids)

        alice, epochs = env.bank.open("alice"), env.epochs
        env.bank.begin_epoch()
        await epochs.rebuild()
        await lose_history(env, epochs)
        analytics = Analytics(env.history, env.ledger, epochs, env.hub(), UnknownPosition(env.bank_client))

        async def list_older(epoch: str) -> model.Page:
            return await analytics.list_operations(
                Principal("https://users.test", "alice", is_service=False, expires_at=0),
                model.PageRequest(alice, limit=10, older_than=1, epoch=epoch),
            )

        assert not (await list_older(env.bank.epoch)).is_complete
        with pytest.raises(LedgerRestored):
            await list_older("")

    async def test_batch_returns_the_pages_that_are_listed_alone(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        bank, bounds = service.bank, [page for stored, page, _ in COMPLETENESS if not stored or 4 in stored]
        alice, bob, other = bank.open("alice"), bank.open("bob"), bank.open("alice")
        events = [
            bank.transfer(*((account, bob) if n % 2 else (bob, account)))
            for n in range(4)
            for account in (alice, other)
        ]
        await service.history.insert([row for event in events for row in rows_from_event(event)][:-2])
        requests = [
            OperationPageRequest(account, **({"limit": 10} | page)) for account in (alice, other) for page in bounds
        ]
        with service.as_user("alice"):
            expected = {
                each: await client.list_operations(
                    each.account_id,
                    limit=each.limit,
                    older_than=each.older_than,
                    newer_than=each.newer_than,
                    filter=each.filter,
                )
                for each in requests
            }
            bank.calls.clear()
            assert await client.batch_list_operations([*requests, requests[0]]) == expected
        assert {page.is_complete for page in expected.values()} == {True, False}
        assert bank.calls["BatchGetAccounts"] == 1
        assert not bank.calls["GetBalance"]

    async def test_refused_page_of_a_batch_does_not_affect_the_others(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        own, others, missing = service.bank.open("alice"), service.bank.open("bob"), uuid4()
        requests = [OperationPageRequest(account, 1) for account in (own, others, missing)]
        requests += [OperationPageRequest(own, -1), OperationPageRequest(own, 1, older_than=5)]
        requests += [OperationPageRequest(own, 1, filter=OperationFilter(min_amount="-1"))]
        with service.as_user("alice"):
            pages = list((await client.batch_list_operations(requests)).values())
        assert pages[0] == OperationPage((), has_older=False, has_newer=False, is_complete=True)
        assert pages[1:3] == [AccountNotFound(str(others)), AccountNotFound(str(missing))]
        assert pages[4] == LedgerRestored()
        fields = [each.violations[0].field for each in (pages[3], pages[5]) if isinstance(each, InvalidInput)]
        assert fields == ["pageSize", "minAmount"]

    async def test_too_large_batch_is_refused(self, service: AnalyticsEnvironment, client: AnalyticsClient) -> None:
        request = analytics_pb2.BatchGetOperationsRequest(requests=[analytics_pb2.GetOperationsRequest()] * 101)
        with service.as_user("alice"), pytest.raises(InvalidInput) as caught:
            await client._calls.unary(client._stub.BatchGetOperations, request)
        assert [each.field for each in caught.value.violations] == ["requests"]

    async def test_bank_of_an_older_release_is_asked_for_each_account(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        service.bank.is_older = True
        accounts = [service.bank.open("alice") for _ in range(2)]
        with service.as_user("alice"):
            pages = await client.batch_list_operations([OperationPageRequest(account, 1) for account in accounts])
        assert [page.is_complete for page in pages.values() if isinstance(page, OperationPage)] == [True, True]
        assert (service.bank.calls["BatchGetAccounts"], service.bank.calls["GetBalance"]) == (1, 2)

    async def test_account_of_another_user_is_not_found(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        bobs_account = service.bank.open("bob")
        with service.as_user("alice"), pytest.raises(AccountNotFound) as caught:
            await client.list_operations(bobs_account, limit=10)
        assert caught.value.account_id == str(bobs_account)

    async def test_operator_reads_all_accounts(self, service: AnalyticsEnvironment, client: AnalyticsClient) -> None:
        with request_context.as_service(lambda: service.keys.user("operator", Role.OPERATOR)):
            assert (await client.list_operations(service.bank.open("bob"), limit=10)).operations == ()

    async def test_call_without_a_token_is_refused(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        with request_context.as_service(lambda: ""), pytest.raises(Unauthenticated):
            await client.list_operations(uuid4(), limit=10)

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"limit": -1}, "pageSize"),
            ({"limit": 1001}, "pageSize"),
            ({"limit": 1, "older_than": 1, "newer_than": 1}, "newerThan"),
            ({"limit": 1, "filter": OperationFilter(min_amount="-1")}, "minAmount"),
            ({"limit": 1, "filter": OperationFilter(max_amount="1e3")}, "maxAmount"),
            ({"limit": 1, "filter": OperationFilter(min_amount="2", max_amount="1")}, "minAmount"),
            (
                {
                    "limit": 1,
                    "filter": OperationFilter(
                        from_=datetime(2026, 1, 1, tzinfo=UTC), to=datetime(2026, 1, 1, tzinfo=UTC)
                    ),
                },
                "from",
            ),
        ],
    )
    async def test_invalid_input_names_its_field(
        self, service: AnalyticsEnvironment, client: AnalyticsClient, arguments: dict[str, object], field: str
    ) -> None:
        with service.as_user("alice"), pytest.raises(InvalidInput) as caught:
            await client.list_operations(service.bank.open("alice"), **arguments)  # type: ignore[arg-type]
        assert [violation.field for violation in caught.value.violations] == [field]

    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            ({"account_id": "x"}, "accountId"),
            ({"filter": {"counterparty_id": "x"}}, "counterpartyId"),
            ({"filter": {"types": [7]}}, "types"),
            ({"filter": {"types": [1] * 101}}, "types"),
            ({"filter": {"direction": 7}}, "direction"),
            ({"filter": {"from": {"seconds": 2**60}}}, "from"),
            ({"filter": {"to": {"seconds": -(2**60)}}}, "to"),
        ],
    )
    async def test_invalid_proto_message_is_refused(
        self, service: AnalyticsEnvironment, request_: dict[str, Any], field: str
    ) -> None:
        error = await get_refusal(
            service, analytics_pb2.GetOperationsRequest(**{"account_id": str(uuid4())} | request_)
        )
        assert isinstance(error, InvalidInput)
        assert [violation.field for violation in error.violations] == [field]

    async def test_unavailable_bank_is_reported(self, service: AnalyticsEnvironment, client: AnalyticsClient) -> None:
        alice = service.bank.open("alice")
        service.bank.is_down = True
        with service.as_user("alice"), pytest.raises(Unavailable):
            await client.list_operations(alice, limit=10)


async def get_refusal(env: AnalyticsEnvironment, request: analytics_pb2.GetOperationsRequest) -> WalletError:
    metadata = (("authorization", f"Bearer {env.keys.user('alice')}"),)
    async with grpc.aio.insecure_channel(env.settings.analytics_grpc_listen) as channel:
        stub: analytics_pb2_grpc.AnalyticsServiceAsyncStub = analytics_pb2_grpc.AnalyticsServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetOperations(request, metadata=metadata)
    return error_from_rpc(caught.value, "analytics")


class TestWatchOperations:
    async def test_stream_has_stored_then_new_operations(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        alice, bob = service.bank.open("alice"), service.bank.open("bob")
        await service.publish(service.bank.transfer(alice, bob), service.bank.transfer(bob, alice))
        with service.as_user("alice"):
            async with asyncio.timeout(10), aclosing(client.watch_operations(alice, 0)) as operations:
                directions = [(await anext(operations)).direction for _ in range(2)]
                await service.publish(service.bank.transfer(alice, bob))
                directions.append((await anext(operations)).direction)
        assert directions == ["OUT", "IN", "OUT"]

    async def test_start_version_is_sent_only_on_request(self, service: AnalyticsEnvironment) -> None:
        alice, bob = service.bank.open("alice"), service.bank.open("bob")
        await service.publish(service.bank.transfer(alice, bob))
        metadata = (("authorization", f"Bearer {service.keys.user('alice')}"),)
        async with grpc.aio.insecure_channel(service.settings.analytics_grpc_listen) as channel:
            stub: analytics_pb2_grpc.AnalyticsServiceAsyncStub = analytics_pb2_grpc.AnalyticsServiceStub(channel)
            call = stub.WatchOperations(
                analytics_pb2.WatchOperationsRequest(account_id=str(alice), include_start_version=True),
                metadata=metadata,
            )
            start = await call.read()
            assert isinstance(start, analytics_pb2.WatchOperationsResponse)
            assert start.start_version == 1
            plain = stub.WatchOperations(analytics_pb2.WatchOperationsRequest(account_id=str(alice)), metadata=metadata)
            first = asyncio.ensure_future(plain.read())

            async def is_received() -> bool:
                await service.publish(service.bank.transfer(alice, bob))
                return first.done()

            await until(is_received)
            received = first.result()
            assert isinstance(received, analytics_pb2.WatchOperationsResponse)
            assert received.HasField("operation")
            call.cancel()
            plain.cancel()

    async def test_several_operations_in_one_message_are_sent_only_on_request(
        self, service: AnalyticsEnvironment
    ) -> None:
        alice, bob = service.bank.open("alice"), service.bank.open("bob")
        await service.publish(*[service.bank.transfer(alice, bob) for _ in range(3)])
        await service.until_stored(alice, [1, 2, 3])
        request = analytics_pb2.WatchOperationsRequest(account_id=str(alice), after_version=0)
        batches = analytics_pb2.WatchOperationsRequest(account_id=str(alice), after_version=0, accepts_batches=True)
        async with grpc.aio.insecure_channel(service.settings.analytics_grpc_listen) as channel:
            stub: analytics_pb2_grpc.AnalyticsServiceAsyncStub = analytics_pb2_grpc.AnalyticsServiceStub(channel)
            metadata = (("authorization", f"Bearer {service.keys.user('alice')}"),)
            received = []
            for each in (request, batches):
                call = stub.WatchOperations(each, metadata=metadata)
                response = await call.read()
                assert isinstance(response, analytics_pb2.WatchOperationsResponse)
                versions = [operation.account_version for operation in response.operations]
                received.append((response.operation.account_version, versions))
                call.cancel()
        assert received == [(1, []), (0, [1, 2, 3])]

    async def test_account_of_another_user_is_not_found(
        self, service: AnalyticsEnvironment, client: AnalyticsClient
    ) -> None:
        with service.as_user("alice"), pytest.raises(AccountNotFound):
            await anext(client.watch_new_operations(service.bank.open("bob")))

    async def test_negative_version_is_refused(self, service: AnalyticsEnvironment, client: AnalyticsClient) -> None:
        with service.as_user("alice"), pytest.raises(InvalidInput, match="after"):
            await anext(client.watch_operations(service.bank.open("alice"), -1))

    async def test_stop_ends_open_streams_at_once(self, env: AnalyticsEnvironment) -> None:
        alice, stop = env.bank.open("alice"), asyncio.Event()
        running = asyncio.create_task(main.serve(env.settings, stop, grace_seconds=GRACE_SECONDS))

        async def is_ready() -> bool:
            return (await health(env)).get("status") == "ready"

        await until(is_ready)
        async with AnalyticsClient.connect(env.settings.analytics_grpc_listen) as client:
            with env.as_user("alice"):
                operations = client.watch_operations(alice, 0)
                waiting = asyncio.ensure_future(anext(operations))

                async def is_open() -> bool:
                    return env.bank.calls["GetBalance"] == 1

                await until(is_open)
                stop.set()
                with pytest.raises(Unavailable):
                    await waiting
                await asyncio.wait_for(running, 4)


class TestProcess:
    async def test_service_starts_before_its_dependencies(self, env: AnalyticsEnvironment) -> None:
        """Start analytics without Kafka and the bank; once both are available, it stores the bank's operations."""
        alice, bob = env.bank.open("alice"), env.bank.open("bob")
        await env.producer.stop()
        await env.kafka.stop()
        env.bank.is_down = True
        env.bank.transfer(alice, bob)
        stop = asyncio.Event()
        running = asyncio.create_task(main.serve(env.settings, stop, grace_seconds=GRACE_SECONDS))

        async def has_status(expected: str) -> bool:
            return (await health(env)).get("status") == expected

        await until(lambda: has_status("not ready"))
        assert not running.done()
        await env.kafka.start()
        env.bank.is_down = False
        await until(lambda: has_status("ready"))
        await env.until_stored(alice, [1])
        stop.set()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(running, 10)

    async def test_metrics_are_exported(self, service: AnalyticsEnvironment) -> None:
        async with httpx.AsyncClient(base_url=f"http://{service.settings.analytics_admin_listen}") as http:
            text = (await http.get("/metrics")).text
        assert "wallet_analytics_events_consumed_total" in text
        assert "wallet_analytics_subscribers 0.0" in text
        assert "\nwallet_analytics_consumer_lag " in text
        assert "\nwallet_analytics_consumer_partitions " in text
        assert "wallet_analytics_accounts_incomplete 0.0" in text
        assert "wallet_analytics_compared_timestamp_seconds 1." in text
