"""`python -m subgraphs.card.service`, as it runs in production: it is killed, and what it stands on goes away."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from protos.wallet.card.v1 import card_pb2
from stack.engines.postgres import Postgres
from stack.process import Child
from subgraphs.card.client import CardClient, TopUp
from tests.conftest import Keys
from tests.integration.bank.harness import RunningBank, rub
from tests.integration.card.card_process import process, running, settings_of, using
from tests.integration.sandbox import running as sandbox
from tests.integration.sandbox.running import Merchant
from tests.waiting import until
from wallet.errors import AccountNotFound, InternalError, Unavailable, WalletError

pytestmark = pytest.mark.slow

SILENT_CAPTURE = "4000000000020018"


@pytest.fixture(scope="module")
async def merchant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Merchant]:
    """A sandbox that is silent for as long as the client bears it."""
    async with sandbox.running(tmp_path_factory.mktemp("sandbox"), sandbox_timeout_seconds=60) as merchant:
        yield merchant


Describe = Callable[..., tuple[Child, dict[str, str]]]


@pytest.fixture
async def describe(
    keys: Keys, tmp_path: Path, card_url: str, bank: RunningBank, merchant: Merchant
) -> AsyncIterator[Describe]:
    """Describes card services, each a process of its own that is gone when the test ends."""
    children = []

    def describe(output: Any = None, **given: Any) -> tuple[Child, dict[str, str]]:
        settings = settings_of(keys, tmp_path, card_url, bank, str(merchant.http.base_url), **given)
        child = process(settings, output)
        children.append(child)
        return child, settings

    yield describe
    for child in children:
        await child.stop()


class TestKill9:
    async def test_in_the_middle_of_every_step_loses_nothing(
        self, describe: Describe, bank: RunningBank, merchant: Merchant
    ) -> None:
        child, settings = describe(card_lease_seconds=0.5, acquirer_timeout_seconds=2, acquirer_budget_seconds=2)
        await child.start()
        async with using(bank, merchant, settings) as card:
            account = await bank.open("alice", "0")
            # Each is silent at a step of its own, where the process is when it is killed.
            numbers = ["4000000000010019", "4000000000010027", "4000000000020018", "4000000000020026"]
            asked = [
                asyncio.create_task(card.top_up(account, rub("1"), number, number)) for number in (*numbers, "4242" * 4)
            ]
            query = "SELECT count(*) = 5 AND count(*) FILTER (WHERE status = 'AUTHORIZED') >= 2 FROM top_ups"
            await until(lambda: card.sql.fetchval(query), every=0.01)
            child.kill()
            await child.wait()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(answer, TopUp | Unavailable) for answer in answers)

            await child.start()
            ids = [row["id"] for row in await card.sql.fetch("SELECT id FROM top_ups")]
            ended = [await card.final(id_, within=20) for id_ in ids]
            assert len(ended) == 5
            for top_up in ended:
                await card.agree(top_up)
            assert sorted(top_up.status for top_up in ended) == ["COMPLETED"] * 4 + ["VOIDED"]
            again = await asyncio.gather(*(card.top_up(account, rub("1"), number, number) for number in numbers))
            assert {top_up.id for top_up in again} <= set(ids)
            assert await bank.balance(account) == 4


class TestSecrets:
    async def test_a_cards_number_and_code_are_nowhere(
        self, describe: Describe, bank: RunningBank, merchant: Merchant
    ) -> None:
        said: list[str] = []
        child, settings = describe(lambda _, line: said.append(line), log_level="DEBUG")
        await child.start()
        cards = [
            ("4242424242424242", "8317"),  # a code that is too long
            ("4242424242424242", "831"),
            ("4000000000000002", "832"),
            ("4000000000010050", "833"),  # every authorization fails
            ("4000000000020018", "834"),  # silence
            ("4242424242424241", "835"),  # a wrong check digit
            ("42424242424242424242424", "836"),
        ]
        async with using(bank, merchant, settings) as card:
            account, errors = await bank.open("alice", "0"), list[str]()
            for number, cvv in cards:
                try:
                    await card.top_up(account, rub("1"), uuid.uuid4().hex, number, cvv=cvv)
                except WalletError as error:
                    errors += [str(error), repr(error)]
            assert len(errors) == 6
            dump = [
                str(tuple(row)) for table in ("top_ups", "webhooks") for row in await card.sql.fetch(f"TABLE {table}")
            ]
            assert len(dump) == 4
            events = await bank.service("card")(bank.client.list_events(account, 0))
            await card.sql.execute("ALTER TABLE top_ups RENAME COLUMN fingerprint TO gone")  # what nobody expects
            for number, cvv in cards[1:3]:
                with pytest.raises(InternalError):
                    await card.top_up(account, rub("1"), uuid.uuid4().hex, number, cvv=cvv)
            await child.stop()
        assert any("a top-up has ended" in line for line in said)
        assert len([line for line in said if "unexpected error" in line]) == 2
        told = "\n".join([*said, *errors, *dump, *(str(event.descriptor) for event in events)])
        for number, cvv in cards:
            assert number not in told
            assert number[:12] not in told
            assert f'"{cvv}"' not in told
            assert f"'{cvv}'" not in told

    def test_the_topics_descriptor_has_no_place_for_them(self) -> None:
        shown = {
            field.name for name in ("TopUp", "Card") for field in card_pb2.DESCRIPTOR.message_types_by_name[name].fields
        }
        assert not shown & {"number", "cvv", "expiry_month", "expiry_year"}


class TestOutage:
    async def test_of_the_acquirer_leaves_the_rest_alone(
        self, keys: Keys, tmp_path: Path, card_url: str, bank: RunningBank
    ) -> None:
        acquirer, url = sandbox.process(tmp_path)
        settings = settings_of(
            keys, tmp_path, card_url, bank, url, acquirer_circuit_failures=2, acquirer_circuit_seconds=0.3
        )
        async with acquirer, running(bank, Merchant(url), settings) as card:
            account = await bank.open("alice", "0")
            done = await card.top_up(account, rub("1"), "before")
            acquirer.kill()
            await acquirer.wait()
            for attempt in range(4):
                with pytest.raises(Unavailable, match="the card acquirer"):
                    await card.top_up(account, rub("1"), f"while {attempt}")
            async with httpx.AsyncClient(trust_env=False, verify=False) as http:
                assert (await http.get(f"{card.admin}/health/ready")).status_code == 200
            assert await card.user("alice")(card.client.get_top_up(done.id)) == done
            assert len((await card.user("alice")(card.client.list_top_ups(account, limit=9))).top_ups) == 1

            await acquirer.start()

            async def works() -> TopUp | None:
                try:
                    return await card.top_up(account, rub("1"), "after")
                except Unavailable:
                    return None

            after = await until(works)
            assert after is not None
            await card.agree(await card.final(after.id))
            await card.merchant.http.aclose()

    async def test_of_the_database_ends_no_process(
        self, keys: Keys, tmp_path: Path, bank: RunningBank, merchant: Merchant, card_url: str, postgres: Postgres
    ) -> None:
        settings = settings_of(keys, tmp_path, card_url, bank, str(merchant.http.base_url))
        async with running(bank, merchant, settings) as card:
            account = await bank.open("alice", "0")
            admin = await asyncpg.connect(postgres.admin_dsn)
            try:
                for attempt in range(3):
                    ended = await admin.fetch(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = $1 AND application_name = 'card'",
                        card_url.rpartition("/")[2],
                    )
                    assert ended

                    async def works(key: str = f"attempt {attempt}") -> TopUp | None:
                        try:
                            return await card.top_up(account, rub("1"), key)
                        except Unavailable:
                            return None

                    top_up = await until(works)
                    assert top_up is not None
                    await card.agree(await card.final(top_up.id))
            finally:
                await admin.close()
            assert await bank.balance(account) == 3

    async def test_a_watched_top_up_is_told_of_after_the_listener_came_back(
        self, keys: Keys, tmp_path: Path, bank: RunningBank, merchant: Merchant, card_url: str
    ) -> None:
        settings = settings_of(keys, tmp_path, card_url, bank, str(merchant.http.base_url), acquirer_timeout_seconds=1)
        async with running(bank, merchant, settings) as card:
            account = await bank.open("alice", "0")
            asked = asyncio.create_task(card.top_up(account, rub("1"), "k", SILENT_CAPTURE))
            query = "SELECT id FROM top_ups WHERE status = 'AUTHORIZED'"
            id_ = await until(lambda: card.sql.fetchval(query), every=0.01)

            async def watched() -> list[str]:
                with card.user("alice").calling():
                    return [top_up.status async for top_up in card.client.watch_top_up(id_)]

            watching = asyncio.create_task(watched())
            listener = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            assert await card.sql.fetch(listener + " AND datname = current_database()")
            assert (await watching)[-1] == "COMPLETED"
            await asked

    async def test_a_watcher_who_loses_the_account_is_let_go(
        self, keys: Keys, tmp_path: Path, bank: RunningBank, merchant: Merchant, card_url: str
    ) -> None:
        settings = settings_of(
            keys,
            tmp_path,
            card_url,
            bank,
            str(merchant.http.base_url),
            acquirer_timeout_seconds=1,
            card_poll_seconds=0.05,
            card_access_seconds=0.05,
        )
        async with running(bank, merchant, settings) as card:
            account = await bank.open("alice", "0")
            asked = asyncio.create_task(card.top_up(account, rub("1"), "k", SILENT_CAPTURE))
            query = "SELECT id FROM top_ups WHERE status = 'AUTHORIZED'"
            id_ = await until(lambda: card.sql.fetchval(query), every=0.01)
            with card.user("alice").calling():
                states = card.client.watch_top_up(id_)
                assert (await anext(states)).status == "AUTHORIZED"
                await bank.sql.execute("UPDATE accounts SET owner_id = 'mallory' WHERE id = $1", account)
                with pytest.raises(AccountNotFound):
                    await anext(states)
            await asked

    async def test_a_stopping_process_sends_its_watchers_to_another(
        self, keys: Keys, tmp_path: Path, bank: RunningBank, merchant: Merchant, card_url: str
    ) -> None:
        settings = settings_of(keys, tmp_path, card_url, bank, str(merchant.http.base_url), acquirer_timeout_seconds=1)
        async with CardClient.connect(settings["card_grpc_listen"]) as client:
            async with running(bank, merchant, settings) as card:
                account = await bank.open("alice", "0")
                asked = asyncio.create_task(card.top_up(account, rub("1"), "k", SILENT_CAPTURE))
                query = "SELECT id FROM top_ups WHERE status = 'AUTHORIZED'"
                id_ = await until(lambda: card.sql.fetchval(query), every=0.01)
                with card.user("alice").calling():
                    states = client.watch_top_up(id_)
                    assert (await anext(states)).status == "AUTHORIZED"
                    watching = asyncio.create_task(anext(states))
            with pytest.raises(Unavailable):
                await watching
            await asyncio.gather(asked, return_exceptions=True)
