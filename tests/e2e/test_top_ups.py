"""Top-ups of the whole system, from the request to the history. No full card number and no CVV is stored."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from decimal import Decimal

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer

from sandbox.cards import CARDS
from stack.engines.postgres import DATABASES, Postgres
from stack.system import System
from tests.e2e.feeds import next_value, subscribe, websocket
from tests.e2e.top_ups import CVV, DECLINED, FINAL, GOOD, UNSURE, card, final_top_up, top_up
from tests.e2e.users import NewUser, User
from tests.waiting import until

TOP_UP = """
    mutation($input: TopUpAccountInput!) {
      topUpAccount(input: $input) {
        ... on TopUpAccountSuccess { topUp { id status account { balance { amount } } transfer { id } } }
        ... on CardDeclined { code declineCode topUp { id status } }
        ... on Error { code message }
      }
    }
"""


class TestTopUp:
    async def test_top_up_reaches_balance_and_history(self, alice: User) -> None:
        response = await top_up(alice, GOOD, "250.00")
        assert response.status_code == 202, response.text
        done = response.json()
        assert (done["status"], done["amount"], done["card"]) == (
            "COMPLETED",
            "250.00",
            {"brand": "VISA", "lastFour": "4242"},
        )
        assert (await alice.http.get(response.headers["Location"])).json() == done
        assert await alice.balance() == Decimal("1250.00")

        async def is_stored() -> bool:
            return bool((await alice.operations(type="TOP_UP"))["operations"])

        await until(is_stored)
        (operation,) = (await alice.operations(type="TOP_UP"))["operations"]
        assert (operation["id"], operation["direction"], operation["amount"]) == (done["transferId"], "IN", "250.00")

    async def test_repeated_key_tops_up_once(self, alice: User) -> None:
        responses = await asyncio.gather(*(top_up(alice, GOOD, key="once") for _ in range(5)))
        assert {response.status_code for response in responses} == {202}
        assert len({response.json()["id"] for response in responses}) == 1
        assert (await final_top_up(alice, responses[0].headers["Location"]))["status"] == "COMPLETED"
        assert await alice.balance() == Decimal("1100.00")
        assert (await top_up(alice, GOOD, "100.01", key="once")).status_code == 422
        assert (await top_up(alice, DECLINED, key="once")).status_code == 422

    async def test_declined_top_up_has_a_reason_and_moves_no_money(self, alice: User) -> None:
        response = await top_up(alice, DECLINED)
        assert (response.status_code, response.json()["status"], response.json()["failure"]) == (
            202,
            "DECLINED",
            "DO_NOT_HONOR",
        )
        assert await alice.balance() == Decimal("1000.00")

    async def test_top_up_of_another_users_account_is_refused(self, alice: User, bob: User) -> None:
        response = await alice.http.post(
            f"/accounts/{bob.account}/topup",
            json={"amount": "1.00", "card": card(GOOD)},
            headers={"Idempotency-Key": "account-of-another-user"},
        )
        assert (response.status_code, response.json()["code"]) == (404, "ACCOUNT_NOT_FOUND")

    async def test_graphql_top_up_resolves_fields_of_other_subgraphs(self, alice: User) -> None:
        sent = {"accountId": alice.account, "amount": "5.00", "card": card(GOOD), "idempotencyKey": "graph"}
        done = (await alice.query(TOP_UP, input=sent))["data"]["topUpAccount"]["topUp"]
        assert (done["status"], done["account"]["balance"]["amount"]) == ("COMPLETED", "1005.00")
        assert done["transfer"]["id"]
        sent = {**sent, "card": card(DECLINED), "idempotencyKey": "declined"}
        refused = (await alice.query(TOP_UP, input=sent))["data"]["topUpAccount"]
        assert (refused["code"], refused["declineCode"]) == ("CARD_DECLINED", "DO_NOT_HONOR")

    async def test_subscription_follows_a_pending_top_up_to_its_final_status(self, alice: User) -> None:
        response = await top_up(alice, UNSURE)
        assert (response.status_code, response.json()["status"]) == (202, "CREATED")
        watched = "subscription($id: ID!) { topUpUpdated(id: $id) { status failure } }"
        async with websocket(alice) as connection:
            seen: list[str] = []
            async with aclosing(subscribe(connection, watched, id=response.json()["id"])) as feed:  # type: ignore[type-var]
                while not seen or seen[-1] not in FINAL:
                    seen.append((await asyncio.wait_for(next_value(feed, "topUpUpdated"), 30))["status"])
        assert seen[-1] == "VOIDED"
        assert await alice.balance() == Decimal("1000.00")


class TestCardData:
    @pytest.fixture
    async def responses(self, system: System, new_user: NewUser) -> list[str]:
        """Responses to valid and invalid requests with every test card, over REST and GraphQL, as text."""
        texts: list[str] = []

        async def pay(user: User, number: str) -> None:
            response = await top_up(user, number)
            texts.append(response.text)
            if response.status_code == 202 and (await final_top_up(user, response.headers["Location"])):
                texts.append((await user.http.get(response.headers["Location"])).text)
            for wrong in (number[:-1], int(number), [number], f" {number}", {"number": number}):
                body = {"amount": "1.00", "card": {**card(number), "number": wrong}}
                texts.append((await user.http.post(f"/accounts/{user.account}/topup", json=body)).text)
                sent = {"accountId": user.account, "amount": "1.00", "card": body["card"], "idempotencyKey": "wrong"}
                texts.append(json.dumps(await user.query(TOP_UP, input=sent)))

        users = [await new_user() for _ in CARDS]
        await asyncio.gather(*map(pay, users, CARDS))
        return texts

    async def test_card_number_and_cvv_are_stored_nowhere_after_using_every_card(
        self, system: System, responses: list[str], every_row: Callable[[], Awaitable[str]], topic: list[bytes]
    ) -> None:
        logs = "".join(file.read_text() for file in (system.data / "logs").rglob("*") if file.is_file())
        books = "".join(file.read_bytes().decode("latin-1") for file in system.data.glob("acquirer.sqlite*"))
        places = {
            "responses": "".join(responses),
            "logs": logs,
            "databases": await every_row(),
            "acquirer": books,
            "topic": b"".join(topic).decode(),
        }
        assert (
            "last_four" in places["databases"] or "4242" in places["databases"]
        )  # the requests did reach the database
        assert "4242" in places["topic"]
        for place, text in places.items():
            for number in CARDS:
                assert number not in text, f"{number} is in the {place}"
            assert not re.search(rf"cvv\W{{1,5}}{CVV}", text), place

    @pytest.fixture
    def every_row(self, system: System) -> Callable[[], Awaitable[str]]:
        """Return a function that reads all rows of all tables as text."""

        async def every_row() -> str:
            rows: list[str] = []
            for database in DATABASES:
                connection = await asyncpg.connect(Postgres(system.data, system.ports.postgres).dsn(database))
                try:
                    for table in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
                        name = table["tablename"]
                        rows += [row["row"] for row in await connection.fetch(f'SELECT t::text AS row FROM "{name}" t')]
                finally:
                    await connection.close()
            return "\n".join(rows)

        return every_row

    @pytest.fixture
    async def topic(self, system: System, responses: list[str]) -> AsyncIterator[list[bytes]]:
        """Values and headers of all messages in the topic, read after the fixture `responses` has sent its requests."""
        consumer = AIOKafkaConsumer(
            "wallet.operations",
            bootstrap_servers=f"127.0.0.1:{system.ports.kafka}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            seen: list[bytes] = []
            read = 0
            while read < sum(ends.values()):
                for messages in (await consumer.getmany(timeout_ms=1_000)).values():
                    read += len(messages)
                    seen += [m.value + b" ".join(value for _, value in m.headers) for m in messages]
            yield seen
        finally:
            await consumer.stop()
