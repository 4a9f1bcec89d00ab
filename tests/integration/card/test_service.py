"""Use cases of the card service over gRPC, with the sandbox acquirer."""

import asyncio
import uuid
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from kit.auth.principal import Role
from protos.wallet.card.v1 import card_pb2
from subgraphs.card.client import TopUp, TopUpPage, TopUpPageRequest
from tests.idempotency_keys import earlier_release
from tests.integration.bank.harness import rub
from tests.integration.card.card_process import RunningCard, card_details
from wallet.errors import (
    AccountClosed,
    AccountNotFound,
    CurrencyMismatch,
    IdempotencyConflict,
    InvalidInput,
    TopUpLimitExceeded,
    TopUpNotFound,
)
from wallet.money import Money


class TestTopUp:
    async def test_top_up_credits_the_account(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "1.00")
        top_up = await card.top_up(account, rub("99.00"), "pays")
        assert (top_up.status, top_up.failure) == ("COMPLETED", None)
        assert (top_up.account_id, top_up.amount) == (account, rub("99.00"))
        assert (top_up.card.brand, top_up.card.last_four) == ("VISA", "4242")
        assert await card.bank.balance(account) == Decimal("100.00")
        assert top_up.transfer_id is not None
        transfer = await card.user("alice")(card.bank.client.get_transfer(top_up.transfer_id))
        assert (transfer.kind, transfer.amount) == ("DEPOSIT", rub("99.00"))
        await card.assert_books_agree(top_up)

    async def test_deposit_event_has_only_brand_and_last_four_digits_of_the_card(self, card: RunningCard) -> None:
        account = await card.bank.open("alice")
        top_up = await card.top_up(account, rub("1.00"), "descriptor")
        (event,) = await card.bank.service("card")(card.bank.client.list_events(account, 0))
        assert event.descriptor == {"topUpId": str(top_up.id), "cardBrand": "VISA", "cardLastFour": "4242"}

    @pytest.mark.parametrize(
        ("number", "status", "failure"),
        [
            ("4000000000000002", "DECLINED", "DO_NOT_HONOR"),
            ("4000000000009995", "DECLINED", "INSUFFICIENT_FUNDS"),
            ("4000000000000069", "DECLINED", "EXPIRED_CARD"),
            ("4000000000010043", "COMPLETED", None),  # 503 twice, then approved
            ("4000000000020034", "COMPLETED", None),  # 503 twice, then captured
            ("4000000000020042", "VOIDED", "CAPTURE_FAILED"),
            ("4000000000010019", "VOIDED", "AUTHORIZATION_UNKNOWN"),  # no response, not authorized
            ("4000000000010027", "COMPLETED", None),  # no response, but authorized
            ("4000000000010035", "VOIDED", "AUTHORIZATION_UNKNOWN"),  # authorized after the cancellation
            ("4000000000010050", "VOIDED", "AUTHORIZATION_UNKNOWN"),  # always 503
            ("4000000000020018", "COMPLETED", None),  # no response, not captured
            ("4000000000020026", "COMPLETED", None),  # no response, but captured
            ("4000000000030017", "VOIDED", "CAPTURE_FAILED"),  # no response, but voided
        ],
    )
    async def test_test_card_leads_to_its_final_status(
        self, card: RunningCard, number: str, status: str, failure: str | None
    ) -> None:
        account = await card.bank.open("alice", "0")
        started = await card.top_up(account, rub("10.00"), uuid.uuid4().hex, number)
        top_up = await card.wait_until_final(started.id)
        assert (top_up.status, top_up.failure) == (status, failure)
        await card.assert_books_agree(top_up)

    async def test_concurrent_requests_with_one_key_are_one_top_up(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "0")
        first, *others = await asyncio.gather(*(card.top_up(account, rub("5.00"), "concurrent") for _ in range(8)))
        assert {top_up.id for top_up in others} == {first.id}
        replay = await card.top_up(account, rub("5.00"), "concurrent")
        assert (replay.id, replay.status) == (first.id, "COMPLETED")
        assert await card.bank.balance(account) == 5

    async def test_only_repeated_requests_are_marked_as_replays(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "0")
        for key, number in (("paid", "4242424242424242"), ("declined", "4000000000000002")):
            created = [await card.create(account, rub("5.00"), f"marked {key}", number) for _ in range(3)]
            assert [each.is_replay for each in created] == [False, True, True]
        concurrent = await asyncio.gather(*(card.create(account, rub("5.00"), "marked once") for _ in range(8)))
        assert sorted(each.is_replay for each in concurrent) == [False] + [True] * 7

    async def test_top_up_of_an_earlier_release_is_found_by_the_quoted_key(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "0")
        with earlier_release():
            earlier = await card.create(account, rub("5.00"), '"earlier"')
        again = await card.create(account, rub("5.00"), "earlier", raw_key='"earlier"')
        assert (again.top_up.id, again.is_replay) == (earlier.top_up.id, True)
        assert await card.bank.balance(account) == 5

    async def test_quoted_and_bare_key_are_one_top_up(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "0")
        forms = ["", '"two forms"'] * 4
        created = await asyncio.gather(
            *(card.create(account, rub("5.00"), "two forms", raw_key=form) for form in forms)
        )
        assert len({each.top_up.id for each in created}) == 1
        assert (await card.wait_until_final(created[0].top_up.id)).status == "COMPLETED"
        assert await card.bank.balance(account) == 5

    async def test_with_both_forms_stored_each_header_keeps_its_own_top_up(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "0")
        with earlier_release():
            earlier = await card.create(account, rub("5.00"), '"both"')
        bare = await card.create(account, rub("6.00"), "both")
        quoted = await card.create(account, rub("5.00"), "both", raw_key='"both"')
        assert [quoted.top_up.id, (await card.create(account, rub("6.00"), "both")).top_up.id] == [
            earlier.top_up.id,
            bare.top_up.id,
        ]
        with pytest.raises(IdempotencyConflict):
            await card.create(account, rub("6.00"), "both", raw_key='"both"')
        assert await card.bank.balance(account) == 11

    async def test_key_whose_text_has_quotation_marks_is_not_found_by_the_quoted_key(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "0")
        text = await card.create(account, rub("5.00"), '"text"', raw_key=r'"\"text\""')
        quoted = await card.create(account, rub("5.00"), "text", raw_key='"text"')
        bare = await card.create(account, rub("5.00"), "text")
        again = await card.create(account, rub("5.00"), '"text"')
        assert [each.is_replay for each in (text, quoted, bare, again)] == [False, False, True, True]
        assert (bare.top_up.id, again.top_up.id) == (quoted.top_up.id, text.top_up.id)
        with pytest.raises(IdempotencyConflict) as conflict:
            await card.create(account, rub("6.00"), '"text"')
        assert conflict.value.idempotency_key == '"text"'
        assert await card.bank.balance(account) == 10

    async def test_top_up_that_an_earlier_release_stored_with_a_grpc_key_is_found(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "0")
        with earlier_release():
            earlier = await card.create(account, rub("5.00"), '"grpc"')
        again = await card.create(account, rub("5.00"), '"grpc"')
        assert (again.top_up.id, again.is_replay) == (earlier.top_up.id, True)

    async def test_repeated_request_returns_the_top_up_after_the_account_was_closed(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "0")
        declined = await card.top_up(account, rub("5.00"), "then closed", "4000000000000002")
        await card.user("alice")(card.bank.client.close_account(account))
        assert await card.top_up(account, rub("5.00"), "then closed", "4000000000000002") == declined

    @pytest.mark.parametrize("other", ["amount", "number", "account", "expiry"])
    async def test_other_request_with_the_same_key_is_a_conflict(self, card: RunningCard, other: str) -> None:
        account, key = await card.bank.open("alice", "0"), f"conflict {other}"
        await card.top_up(account, rub("5.00"), key)
        with pytest.raises(IdempotencyConflict):
            await card.top_up(
                await card.bank.open("alice") if other == "account" else account,
                rub("6.00") if other == "amount" else rub("5.00"),
                key,
                "5555555555554444" if other == "number" else "4242424242424242",
                expiry_month=11 if other == "expiry" else 12,
            )

    async def test_idempotency_keys_are_scoped_to_the_caller(self, card: RunningCard) -> None:
        alices_top_up = await card.top_up(await card.bank.open("alice"), rub("5.00"), "own")
        bobs_top_up = await card.top_up(await card.bank.open("bob"), rub("5.00"), "own", caller="bob")
        assert alices_top_up.id != bobs_top_up.id

    async def test_security_code_is_not_part_of_the_fingerprint(self, card: RunningCard) -> None:
        account = await card.bank.open("alice")
        first = await card.top_up(account, rub("5.00"), "code")
        assert (await card.top_up(account, rub("5.00"), "code", cvv="321")).id == first.id


class TestRefusedRequests:
    async def test_invalid_input_names_every_field_and_no_value(self, card: RunningCard) -> None:
        with pytest.raises(InvalidInput) as error:
            await card.top_up(
                uuid.uuid4(), rub("-1"), "", "4242424242424241", expiry_month=13, expiry_year=1999, cvv="12345"
            )
        assert {violation.field for violation in error.value.violations} == {
            "amount",
            "idempotencyKey",
            "card.number",
            "card.expiryMonth",
            "card.expiryYear",
            "card.cvv",
        }
        assert not [value for value in ("4242424242424241", "12345") if value in str(error.value)]

    async def test_account_of_another_user_is_not_found(self, card: RunningCard) -> None:
        with pytest.raises(AccountNotFound):
            await card.top_up(await card.bank.open("bob"), rub("1"), "other account")

    async def test_closed_account_or_other_currency_starts_no_top_up(self, card: RunningCard) -> None:
        closed, dollars = await card.bank.open("alice", "0"), await card.bank.open("alice", currency="USD")
        await card.user("alice")(card.bank.client.close_account(closed))
        with pytest.raises(AccountClosed):
            await card.top_up(closed, rub("1"), "closed")
        with pytest.raises(CurrencyMismatch):
            await card.top_up(dollars, rub("1"), "dollars")
        with pytest.raises(InvalidInput, match="has no card top-ups; supported: RUB"):
            await card.top_up(dollars, Money.parse("1", "USD"), "limits")
        assert not await card.sql.fetchval("SELECT count(*) FROM top_ups WHERE account_id = ANY($1)", [closed, dollars])

    async def test_top_up_above_the_limit_is_refused_with_the_available_amount(self, card: RunningCard) -> None:
        with pytest.raises(TopUpLimitExceeded) as error:
            await card.top_up(await card.bank.open("alice"), rub("10000.01"), "limit")
        assert error.value == TopUpLimitExceeded("TOP_UP", "10000.00", "10000.00", "RUB")

    async def test_concurrent_top_ups_do_not_exceed_the_daily_limit_together(self, card: RunningCard) -> None:
        account = await card.bank.open("carol", "0")
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(card.top_up(account, rub("10000"), f"day {number}", caller="carol"))
        await card.top_up(
            account, rub("10000"), "declined", "4000000000000002", caller="carol"
        )  # does not count towards the limit
        requests = (card.top_up(account, rub("6000"), f"last {number}", caller="carol") for number in range(3))
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert [result.status for result in results if isinstance(result, TopUp)] == ["COMPLETED"]
        refused = [result for result in results if not isinstance(result, TopUp)]
        assert refused == [TopUpLimitExceeded("DAY", "50000.00", "4000.00", "RUB")] * 2


class TestReads:
    async def test_only_owner_and_operators_may_read_a_top_up(self, card: RunningCard) -> None:
        top_up = await card.top_up(await card.bank.open("alice"), rub("1"), "own top-up")
        assert await card.user("alice")(card.client.get_top_up(top_up.id)) == top_up
        assert await card.bank.user("operator", Role.OPERATOR)(card.client.get_top_up(top_up.id)) == top_up
        bob = card.user("bob")
        for id_ in (top_up.id, uuid.uuid4()):
            with pytest.raises(TopUpNotFound):
                await bob(card.client.get_top_up(id_))
            with pytest.raises(TopUpNotFound), bob.calling():
                await anext(card.client.watch_top_up(id_))

    async def test_batch_returns_a_result_for_each_id(self, card: RunningCard) -> None:
        account, missing = await card.bank.open("alice"), uuid.uuid4()
        first, second = [await card.top_up(account, rub("1"), f"batch {number}") for number in range(2)]
        results = await card.user("alice")(card.client.batch_get_top_ups([second.id, missing, first.id]))
        assert results == {first.id: first, second.id: second, missing: TopUpNotFound(str(missing))}

    async def test_pages_can_be_read_in_both_directions(self, card: RunningCard) -> None:
        account, alice = await card.bank.open("alice"), card.user("alice")
        ids = [(await card.top_up(account, rub("1"), f"page {number}")).id for number in range(5)][::-1]

        async def list_page(**bounds: UUID) -> tuple[list[UUID], bool, bool]:
            page = await alice(card.client.list_top_ups(account, limit=2, **bounds))
            return [top_up.id for top_up in page.top_ups], page.has_older, page.has_newer

        assert await list_page() == (ids[:2], True, False)
        assert await list_page(older_than=ids[1]) == (ids[2:4], True, True)
        assert await list_page(older_than=ids[3]) == (ids[4:], False, True)
        assert await list_page(older_than=ids[4]) == ([], False, True)
        assert await list_page(newer_than=ids[4]) == (ids[2:4], True, True)
        assert await list_page(newer_than=ids[2]) == (ids[:2], True, False)
        assert await list_page(newer_than=ids[0]) == ([], True, False)
        assert await list_page(newer_than=UUID(int=0)) == (ids[3:], False, True)
        with pytest.raises(InvalidInput):
            await list_page(older_than=ids[0], newer_than=ids[4])
        with pytest.raises(AccountNotFound):
            await card.user("bob")(card.client.list_top_ups(account, limit=2))

    async def test_batch_returns_the_pages_that_are_listed_alone(self, card: RunningCard) -> None:
        alice = card.user("alice")
        accounts = [await card.bank.open("alice") for _ in range(2)]
        ids = [(await card.top_up(accounts[number % 2], rub("1"), f"batch page {number}")).id for number in range(7)]
        bounds: list[dict[str, Any]] = [{}, {"older_than": ids[4]}, {"newer_than": ids[2]}, {"newer_than": UUID(int=0)}]
        requests = [
            TopUpPageRequest(account, limit, **bound)
            for account in (*accounts, await card.bank.open("alice"))
            for limit in (1, 2, 0)
            for bound in bounds
        ]
        expected = {
            each: await alice(
                card.client.list_top_ups(
                    each.account_id, limit=each.limit, older_than=each.older_than, newer_than=each.newer_than
                )
            )
            for each in requests
        }
        assert await alice(card.client.batch_list_top_ups([*requests, requests[0]])) == expected

    async def test_refused_page_of_a_batch_does_not_affect_the_others(self, card: RunningCard) -> None:
        own, others, missing = await card.bank.open("alice"), await card.bank.open("bob"), uuid.uuid4()
        top_up = await card.top_up(own, rub("1"), "page beside refused ones")
        requests = [TopUpPageRequest(each, 1) for each in (own, others, missing)]
        requests += [TopUpPageRequest(own, -1), TopUpPageRequest(own, 1, top_up.id, top_up.id)]
        pages = list((await card.user("alice")(card.client.batch_list_top_ups(requests))).values())
        assert pages[0] == TopUpPage((top_up,), has_older=False, has_newer=False)
        assert pages[1:3] == [AccountNotFound(str(others)), AccountNotFound(str(missing))]
        assert [each.violations[0].field for each in pages[3:] if isinstance(each, InvalidInput)] == [
            "pageSize",
            "newerThan",
        ]

    async def test_too_large_batch_is_refused(self, card: RunningCard) -> None:
        request = card_pb2.BatchListTopUpsRequest(requests=[card_pb2.ListTopUpsRequest()] * 101)
        with card.user("alice").calling(), pytest.raises(InvalidInput) as caught:
            await card.client._calls.unary(card.client._stub.BatchListTopUps, request)
        assert [each.field for each in caught.value.violations] == ["requests"]

    async def test_stream_of_a_top_up_ends_with_its_final_status(self, card: RunningCard) -> None:
        account = await card.bank.open("alice")
        request = asyncio.create_task(card.top_up(account, rub("1"), "watched", "4000000000020018"))
        with card.user("alice").calling():
            top_ups: list[TopUp] = []
            while not top_ups:
                top_ups = list((await card.client.list_top_ups(account, limit=1)).top_ups)
            states = [top_up async for top_up in card.client.watch_top_up(top_ups[0].id)]
        statuses = [top_up.status for top_up in states]
        assert statuses[-1] == "COMPLETED"
        order = ["CREATED", "AUTHORIZED", "CAPTURED", "COMPLETED"]
        assert statuses == [status for status in order if status in statuses]
        assert "AUTHORIZED" in statuses
        assert [top_up.version for top_up in states] == sorted({top_up.version for top_up in states})
        assert (await request).status == "COMPLETED"


class TestCancelledRequest:
    async def test_top_up_of_a_cancelled_request_is_completed(self, card: RunningCard) -> None:
        account, alice = await card.bank.open("alice", "0"), card.user("alice")
        request = asyncio.create_task(
            alice(card.client.create_top_up(account, rub("3"), card_details("4000000000020018"), "cancelled"))
        )
        with alice.calling():
            while not (page := await card.client.list_top_ups(account, limit=1)).top_ups:
                pass
        request.cancel()
        assert (await card.wait_until_final(page.top_ups[0].id)).status == "COMPLETED"
        assert await card.bank.balance(account) == 3
