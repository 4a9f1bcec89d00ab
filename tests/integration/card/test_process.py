"""The process `python -m subgraphs.card.service` under kill -9 and outages of its dependencies."""

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
from tests.integration.card.card_process import card_child, card_settings, connect_card, run_card
from tests.integration.sandbox import running as sandbox
from tests.integration.sandbox.running import Merchant
from tests.migration_jobs import URL_PARAMETERS, count_named_sessions, migrate
from tests.waiting import until
from wallet.errors import AccountNotFound, InternalError, Unavailable, WalletError

pytestmark = pytest.mark.slow

SILENT_CAPTURE = "4000000000020018"


@pytest.fixture(scope="module")
async def merchant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Merchant]:
    """Client of a sandbox whose simulated time-outs are longer than the time-out of the card service."""
    async with sandbox.running(tmp_path_factory.mktemp("sandbox"), sandbox_timeout_seconds=60) as merchant:
        yield merchant


CardFactory = Callable[..., tuple[Child, dict[str, str]]]


@pytest.fixture
async def create_card(
    keys: Keys, tmp_path: Path, card_url: str, bank: RunningBank, merchant: Merchant
) -> AsyncIterator[CardFactory]:
    """Return a function that creates processes of the card service without starting them; the fixture stops them."""
    children = []

    def create_card(output: Any = None, **overrides: Any) -> tuple[Child, dict[str, str]]:
        settings = card_settings(keys, tmp_path, card_url, bank, str(merchant.http.base_url), **overrides)
        child = card_child(settings, output)
        children.append(child)
        return child, settings

    yield create_card
    for child in children:
        await child.stop()


async def test_service_and_its_migration_start_with_parameters_in_the_url(
    create_card: CardFactory, card_url: str
) -> None:
    url = f"{card_url}?{URL_PARAMETERS}"
    assert await migrate("card", CARD_DATABASE_URL=url) == (0, [])
    child, _ = create_card(card_database_url=url)
    await child.start()
    assert await count_named_sessions(card_url)


class TestKill9:
    async def test_kill_9_during_authorizations_and_captures_loses_no_money(
        self, create_card: CardFactory, bank: RunningBank, merchant: Merchant
    ) -> None:
        child, settings = create_card(acquirer_timeout_seconds=2, acquirer_budget_seconds=2)
        await child.start()
        async with connect_card(bank, merchant, settings) as card:
            account = await bank.open("alice", "0")
            # With these cards the authorization or the capture gets no response, so the kill happens during that call.
            numbers = ["4000000000010019", "4000000000010027", "4000000000020018", "4000000000020026"]
            requests = [
                asyncio.create_task(card.top_up(account, rub("1"), number, number)) for number in (*numbers, "4242" * 4)
            ]
            query = "SELECT count(*) = 5 AND count(*) FILTER (WHERE status = 'AUTHORIZED') >= 2 FROM top_ups"
            await until(lambda: card.sql.fetchval(query), every=0.01)
            child.kill()
            await child.wait()
            results = await asyncio.gather(*requests, return_exceptions=True)
            assert all(isinstance(result, TopUp | Unavailable) for result in results)

            await child.start()
            ids = [row["id"] for row in await card.sql.fetch("SELECT id FROM top_ups")]
            finished = [await card.wait_until_final(id_, within=20) for id_ in ids]
            assert len(finished) == 5
            for top_up in finished:
                await card.assert_books_agree(top_up)
            assert sorted(top_up.status for top_up in finished) == ["COMPLETED"] * 4 + ["VOIDED"]
            replays = await asyncio.gather(*(card.top_up(account, rub("1"), number, number) for number in numbers))
            assert {top_up.id for top_up in replays} <= set(ids)
            assert await bank.balance(account) == 4


class TestSecrets:
    async def test_card_number_and_code_are_not_in_logs_errors_database_or_events(
        self, create_card: CardFactory, bank: RunningBank, merchant: Merchant
    ) -> None:
        log_lines: list[str] = []
        child, settings = create_card(lambda _, line: log_lines.append(line), log_level="DEBUG")
        await child.start()
        cards = [
            ("4242424242424242", "8317"),  # a code that is too long
            ("4242424242424242", "831"),
            ("4000000000000002", "832"),
            ("4000000000010050", "833"),  # every authorization fails
            ("4000000000020018", "834"),  # the capture gets no response
            ("4242424242424241", "835"),  # a wrong check digit
            ("42424242424242424242424", "836"),
        ]
        async with connect_card(bank, merchant, settings) as card:
            account, errors = await bank.open("alice", "0"), list[str]()
            for number, cvv in cards:
                try:
                    await card.top_up(account, rub("1"), uuid.uuid4().hex, number, cvv=cvv)
                except WalletError as error:
                    errors += [str(error), repr(error)]
            assert len(errors) == 6
            dump = [
                str(tuple(row))
                for table in ("top_ups", "webhooks", "card_attempts")
                for row in await card.sql.fetch(f"TABLE {table}")
            ]
            assert len(dump) == 5  # four top-ups, and the attempt with the declined card
            events = await bank.service("card")(bank.client.list_events(account, 0))
            # Cause an unexpected error.
            await card.sql.execute("ALTER TABLE top_ups RENAME COLUMN fingerprint TO gone")
            for number, cvv in cards[1:3]:
                with pytest.raises(InternalError):
                    await card.top_up(account, rub("1"), uuid.uuid4().hex, number, cvv=cvv)
            await child.stop()
        assert any("top-up ended" in line for line in log_lines)
        assert len([line for line in log_lines if "unexpected error" in line]) == 2
        text = "\n".join([*log_lines, *errors, *dump, *(str(event.descriptor) for event in events)])
        for number, cvv in cards:
            assert number not in text
            assert number[:12] not in text
            assert f'"{cvv}"' not in text
            assert f"'{cvv}'" not in text

    def test_proto_messages_with_top_ups_have_no_fields_for_card_secrets(self) -> None:
        fields = {
            field.name for name in ("TopUp", "Card") for field in card_pb2.DESCRIPTOR.message_types_by_name[name].fields
        }
        assert not fields & {"number", "cvv", "expiry_month", "expiry_year"}


class TestOutage:
    async def test_outage_of_the_acquirer_affects_new_top_ups_only(
        self, keys: Keys, tmp_path: Path, card_url: str, bank: RunningBank
    ) -> None:
        acquirer, url = sandbox.process(tmp_path)
        settings = card_settings(
            keys, tmp_path, card_url, bank, url, acquirer_circuit_failures=2, acquirer_circuit_seconds=0.3
        )
        async with acquirer, run_card(bank, Merchant(url), settings) as card:
            account = await bank.open("alice", "0")
            completed = await card.top_up(account, rub("1"), "before")
            acquirer.kill()
            await acquirer.wait()
            for attempt in range(4):
                with pytest.raises(Unavailable, match="the card acquirer"):
                    await card.top_up(account, rub("1"), f"while {attempt}")
            async with httpx.AsyncClient(trust_env=False, verify=False) as http:
                assert (await http.get(f"{card.admin}/health/ready")).status_code == 200
            assert await card.user("alice")(card.client.get_top_up(completed.id)) == completed
            assert len((await card.user("alice")(card.client.list_top_ups(account, limit=9))).top_ups) == 1

            await acquirer.start()

            async def try_top_up() -> TopUp | None:
                try:
                    return await card.top_up(account, rub("1"), "after")
                except Unavailable:
                    return None

            after = await until(try_top_up)
            assert after is not None
            await card.assert_books_agree(await card.wait_until_final(after.id))
            await card.merchant.http.aclose()

    async def test_lost_database_connections_end_no_process(
        self, keys: Keys, tmp_path: Path, bank: RunningBank, merchant: Merchant, card_url: str, postgres: Postgres
    ) -> None:
        settings = card_settings(keys, tmp_path, card_url, bank, str(merchant.http.base_url))
        async with run_card(bank, merchant, settings) as card:
            account = await bank.open("alice", "0")
            admin = await asyncpg.connect(postgres.admin_dsn)
            try:
                for attempt in range(3):
                    terminated = await admin.fetch(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = $1 AND application_name = 'card'",
                        card_url.rpartition("/")[2],
                    )
                    assert terminated

                    async def try_top_up(key: str = f"attempt {attempt}") -> TopUp | None:
                        try:
                            return await card.top_up(account, rub("1"), key)
                        except Unavailable:
                            return None

                    top_up = await until(try_top_up)
                    assert top_up is not None
                    await card.assert_books_agree(await card.wait_until_final(top_up.id))
            finally:
                await admin.close()
            assert await bank.balance(account) == 3

    async def test_subscriber_gets_changes_after_the_listener_reconnects(
        self, keys: Keys, tmp_path: Path, bank: RunningBank, merchant: Merchant, card_url: str
    ) -> None:
        settings = card_settings(
            keys, tmp_path, card_url, bank, str(merchant.http.base_url), acquirer_timeout_seconds=1
        )
        async with run_card(bank, merchant, settings) as card:
            account = await bank.open("alice", "0")
            request = asyncio.create_task(card.top_up(account, rub("1"), "k", SILENT_CAPTURE))
            query = "SELECT id FROM top_ups WHERE status = 'AUTHORIZED'"
            id_ = await until(lambda: card.sql.fetchval(query), every=0.01)

            async def read_statuses() -> list[str]:
                with card.user("alice").calling():
                    return [top_up.status async for top_up in card.client.watch_top_up(id_)]

            watching = asyncio.create_task(read_statuses())
            listener = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            assert await card.sql.fetch(listener + " AND datname = current_database()")
            assert (await watching)[-1] == "COMPLETED"
            await request

    async def test_subscriber_who_loses_access_to_the_account_is_disconnected(
        self, keys: Keys, tmp_path: Path, bank: RunningBank, merchant: Merchant, card_url: str
    ) -> None:
        settings = card_settings(
            keys,
            tmp_path,
            card_url,
            bank,
            str(merchant.http.base_url),
            acquirer_timeout_seconds=1,
            card_access_seconds=0.05,
        )
        async with run_card(bank, merchant, settings, poll_seconds=0.05) as card:
            account = await bank.open("alice", "0")
            request = asyncio.create_task(card.top_up(account, rub("1"), "k", SILENT_CAPTURE))
            query = "SELECT id FROM top_ups WHERE status = 'AUTHORIZED'"
            id_ = await until(lambda: card.sql.fetchval(query), every=0.01)
            with card.user("alice").calling():
                states = card.client.watch_top_up(id_)
                assert (await anext(states)).status == "AUTHORIZED"
                await bank.sql.execute("UPDATE accounts SET owner_id = 'mallory' WHERE id = $1", account)
                with pytest.raises(AccountNotFound):
                    await anext(states)
            await request

    async def test_stopping_process_ends_its_streams_with_unavailable(
        self, keys: Keys, tmp_path: Path, bank: RunningBank, merchant: Merchant, card_url: str
    ) -> None:
        settings = card_settings(
            keys, tmp_path, card_url, bank, str(merchant.http.base_url), acquirer_timeout_seconds=1
        )
        async with CardClient.connect(settings["card_grpc_listen"]) as client:
            async with run_card(bank, merchant, settings) as card:
                account = await bank.open("alice", "0")
                request = asyncio.create_task(card.top_up(account, rub("1"), "k", SILENT_CAPTURE))
                query = "SELECT id FROM top_ups WHERE status = 'AUTHORIZED'"
                id_ = await until(lambda: card.sql.fetchval(query), every=0.01)
                with card.user("alice").calling():
                    states = client.watch_top_up(id_)
                    assert (await anext(states)).status == "AUTHORIZED"
                    watching = asyncio.create_task(anext(states))
            with pytest.raises(Unavailable):
                await watching
            await asyncio.gather(request, return_exceptions=True)
