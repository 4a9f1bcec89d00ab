"""What callers are promised, over gRPC, against the sandbox acquirer."""

import asyncio
import uuid
from decimal import Decimal
from uuid import UUID

import pytest

from kit.auth.principal import Role
from subgraphs.card.client import TopUp
from tests.integration.bank.harness import rub
from tests.integration.card.card_process import RunningCard, details
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
    async def test_pays_into_the_account(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "1.00")
        top_up = await card.top_up(account, rub("99.00"), "pays")
        assert (top_up.status, top_up.failure) == ("COMPLETED", None)
        assert (top_up.account_id, top_up.amount) == (account, rub("99.00"))
        assert (top_up.card.brand, top_up.card.last_four) == ("VISA", "4242")
        assert await card.bank.balance(account) == Decimal("100.00")
        assert top_up.transfer_id is not None
        transfer = await card.user("alice")(card.bank.client.get_transfer(top_up.transfer_id))
        assert (transfer.kind, transfer.amount) == ("DEPOSIT", rub("99.00"))
        await card.agree(top_up)

    async def test_tells_the_ledger_of_the_card_no_more_than_may_be_shown(self, card: RunningCard) -> None:
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
            ("4000000000010019", "VOIDED", "AUTHORIZATION_UNKNOWN"),  # silence, and nothing came of it
            ("4000000000010027", "COMPLETED", None),  # silence, but authorized
            ("4000000000010035", "VOIDED", "AUTHORIZATION_UNKNOWN"),  # authorized too late
            ("4000000000010050", "VOIDED", "AUTHORIZATION_UNKNOWN"),  # 503 always
            ("4000000000020018", "COMPLETED", None),  # silence before the capture
            ("4000000000020026", "COMPLETED", None),  # silence after it
            ("4000000000030017", "VOIDED", "CAPTURE_FAILED"),  # silence after the void
        ],
    )
    async def test_ends_as_the_card_has_it(
        self, card: RunningCard, number: str, status: str, failure: str | None
    ) -> None:
        account = await card.bank.open("alice", "0")
        begun = await card.top_up(account, rub("10.00"), uuid.uuid4().hex, number)
        top_up = await card.final(begun.id)
        assert (top_up.status, top_up.failure) == (status, failure)
        await card.agree(top_up)

    async def test_with_the_same_key_is_one_top_up(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "0")
        first, *others = await asyncio.gather(*(card.top_up(account, rub("5.00"), "same at once") for _ in range(8)))
        assert {top_up.id for top_up in others} == {first.id}
        again = await card.top_up(account, rub("5.00"), "same at once")
        assert (again.id, again.status) == (first.id, "COMPLETED")
        assert await card.bank.balance(account) == 5

    async def test_is_answered_again_after_its_account_was_closed(self, card: RunningCard) -> None:
        account = await card.bank.open("alice", "0")
        declined = await card.top_up(account, rub("5.00"), "then closed", "4000000000000002")
        await card.user("alice")(card.bank.client.close_account(account))
        assert await card.top_up(account, rub("5.00"), "then closed", "4000000000000002") == declined

    @pytest.mark.parametrize("other", ["amount", "number", "account", "expiry"])
    async def test_with_the_same_key_and_another_request_is_a_conflict(self, card: RunningCard, other: str) -> None:
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

    async def test_keys_are_each_callers_own(self, card: RunningCard) -> None:
        of_alice = await card.top_up(await card.bank.open("alice"), rub("5.00"), "own")
        of_bob = await card.top_up(await card.bank.open("bob"), rub("5.00"), "own", caller="bob")
        assert of_alice.id != of_bob.id

    async def test_another_code_is_the_same_request(self, card: RunningCard) -> None:
        account = await card.bank.open("alice")
        first = await card.top_up(account, rub("5.00"), "code")
        assert (await card.top_up(account, rub("5.00"), "code", cvv="321")).id == first.id


class TestRefusals:
    async def test_name_every_field_and_no_value(self, card: RunningCard) -> None:
        with pytest.raises(InvalidInput) as caught:
            await card.top_up(
                uuid.uuid4(), rub("-1"), "", "4242424242424241", expiry_month=13, expiry_year=1999, cvv="12345"
            )
        assert {violation.field for violation in caught.value.violations} == {
            "amount",
            "idempotencyKey",
            "card.number",
            "card.expiryMonth",
            "card.expiryYear",
            "card.cvv",
        }
        assert not [value for value in ("4242424242424241", "12345") if value in str(caught.value)]

    async def test_another_users_account_is_not_there(self, card: RunningCard) -> None:
        with pytest.raises(AccountNotFound):
            await card.top_up(await card.bank.open("bob"), rub("1"), "another's")

    async def test_nothing_is_begun_for_a_closed_account_or_another_currency(self, card: RunningCard) -> None:
        closed, dollars = await card.bank.open("alice", "0"), await card.bank.open("alice", currency="USD")
        await card.user("alice")(card.bank.client.close_account(closed))
        with pytest.raises(AccountClosed):
            await card.top_up(closed, rub("1"), "closed")
        with pytest.raises(CurrencyMismatch):
            await card.top_up(dollars, rub("1"), "dollars")
        with pytest.raises(InvalidInput, match="cannot be paid in by card; RUB can"):
            await card.top_up(dollars, Money.parse("1", "USD"), "limits")
        assert not await card.sql.fetchval("SELECT count(*) FROM top_ups WHERE account_id = ANY($1)", [closed, dollars])

    async def test_a_top_up_beyond_the_limit_says_what_is_left(self, card: RunningCard) -> None:
        with pytest.raises(TopUpLimitExceeded) as caught:
            await card.top_up(await card.bank.open("alice"), rub("10000.01"), "limit")
        assert caught.value == TopUpLimitExceeded("TOP_UP", "10000.00", "10000.00", "RUB")

    async def test_at_once_they_do_not_pass_the_days_limit_together(self, card: RunningCard) -> None:
        account = await card.bank.open("carol", "0")
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(card.top_up(account, rub("10000"), f"day {number}", caller="carol"))
        await card.top_up(account, rub("10000"), "declined", "4000000000000002", caller="carol")  # does not count
        asked = (card.top_up(account, rub("6000"), f"last {number}", caller="carol") for number in range(3))
        made = await asyncio.gather(*asked, return_exceptions=True)
        assert [answer.status for answer in made if isinstance(answer, TopUp)] == ["COMPLETED"]
        refused = [answer for answer in made if not isinstance(answer, TopUp)]
        assert refused == [TopUpLimitExceeded("DAY", "50000.00", "4000.00", "RUB")] * 2


class TestReading:
    async def test_a_top_up_is_its_owners_and_operators(self, card: RunningCard) -> None:
        top_up = await card.top_up(await card.bank.open("alice"), rub("1"), "own top-up")
        assert await card.user("alice")(card.client.get_top_up(top_up.id)) == top_up
        assert await card.bank.user("operator", Role.OPERATOR)(card.client.get_top_up(top_up.id)) == top_up
        bob = card.user("bob")
        for id_ in (top_up.id, uuid.uuid4()):
            with pytest.raises(TopUpNotFound):
                await bob(card.client.get_top_up(id_))
            with pytest.raises(TopUpNotFound), bob.calling():
                await anext(card.client.watch_top_up(id_))

    async def test_a_batch_answers_each_key(self, card: RunningCard) -> None:
        account, nothing = await card.bank.open("alice"), uuid.uuid4()
        first, second = [await card.top_up(account, rub("1"), f"batch {number}") for number in range(2)]
        found = await card.user("alice")(card.client.batch_get_top_ups([second.id, nothing, first.id]))
        assert found == {first.id: first, second.id: second, nothing: TopUpNotFound(str(nothing))}

    async def test_pages_go_both_ways(self, card: RunningCard) -> None:
        account, alice = await card.bank.open("alice"), card.user("alice")
        ids = [(await card.top_up(account, rub("1"), f"page {number}")).id for number in range(5)][::-1]

        async def page(**bounds: UUID) -> tuple[list[UUID], bool, bool]:
            found = await alice(card.client.list_top_ups(account, limit=2, **bounds))
            return [top_up.id for top_up in found.top_ups], found.has_older, found.has_newer

        assert await page() == (ids[:2], True, False)
        assert await page(older_than=ids[1]) == (ids[2:4], True, True)
        assert await page(older_than=ids[3]) == (ids[4:], False, True)
        assert await page(older_than=ids[4]) == ([], False, True)
        assert await page(newer_than=ids[4]) == (ids[2:4], True, True)
        assert await page(newer_than=ids[2]) == (ids[:2], True, False)
        assert await page(newer_than=ids[0]) == ([], True, False)
        with pytest.raises(InvalidInput):
            await page(older_than=ids[0], newer_than=ids[4])
        with pytest.raises(AccountNotFound):
            await card.user("bob")(card.client.list_top_ups(account, limit=2))

    async def test_a_top_up_is_watched_to_its_end(self, card: RunningCard) -> None:
        account = await card.bank.open("alice")
        begun = asyncio.create_task(card.top_up(account, rub("1"), "watched", "4000000000020018"))
        with card.user("alice").calling():
            found: list[TopUp] = []
            while not found:
                found = list((await card.client.list_top_ups(account, limit=1)).top_ups)
            states = [top_up async for top_up in card.client.watch_top_up(found[0].id)]
        statuses = [top_up.status for top_up in states]
        assert statuses[-1] == "COMPLETED"
        order = ["CREATED", "AUTHORIZED", "CAPTURED", "COMPLETED"]
        assert statuses == [status for status in order if status in statuses]
        assert "AUTHORIZED" in statuses
        assert [top_up.version for top_up in states] == sorted({top_up.version for top_up in states})
        assert (await begun).status == "COMPLETED"


class TestWaiting:
    async def test_a_caller_who_does_not_wait_changes_nothing(self, card: RunningCard) -> None:
        account, alice = await card.bank.open("alice", "0"), card.user("alice")
        asked = asyncio.create_task(
            alice(card.client.create_top_up(account, rub("3"), details("4000000000020018"), "left"))
        )
        with alice.calling():
            while not (page := await card.client.list_top_ups(account, limit=1)).top_ups:
                pass
        asked.cancel()
        assert (await card.final(page.top_ups[0].id)).status == "COMPLETED"
        assert await card.bank.balance(account) == 3
