"""Card service behind PgBouncer, in session mode and in transaction mode."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from stack import probes
from stack.process import Child, Process, module
from tests.conftest import Keys
from tests.integration.bank.harness import RunningBank, rub
from tests.integration.card.card_process import card_settings, connect_card, run_card
from tests.integration.sandbox import running as sandbox
from tests.integration.sandbox.running import Merchant
from tests.pgbouncer import run_pgbouncer
from wallet.errors import Unavailable

pytestmark = pytest.mark.slow


@pytest.fixture
async def merchant(tmp_path: Path) -> AsyncIterator[Merchant]:
    async with sandbox.running(tmp_path) as merchant:
        yield merchant


async def test_concurrent_top_ups_are_completed_in_session_mode(
    keys: Keys, tmp_path: Path, card_url: str, bank: RunningBank, merchant: Merchant
) -> None:
    async with run_pgbouncer(card_url, "session") as pooled:
        settings = card_settings(keys, tmp_path, pooled, bank, str(merchant.http.base_url))
        async with run_card(bank, merchant, settings) as card:
            account = await bank.open("alice", "0")
            top_ups = await asyncio.gather(*(card.top_up(account, rub("1"), str(n)) for n in range(20)))
            for top_up in top_ups:
                final = await card.wait_until_final(top_up.id)
                assert final.status == "COMPLETED"
                await card.assert_books_agree(final)
            replays = await asyncio.gather(*(card.top_up(account, rub("1"), str(n)) for n in range(20)))
            assert [replay.id for replay in replays] == [top_up.id for top_up in top_ups]
            assert await bank.balance(account) == 20


async def test_card_service_in_transaction_mode_is_not_ready_and_refuses_top_ups(
    keys: Keys, tmp_path: Path, card_url: str, bank: RunningBank, merchant: Merchant
) -> None:
    async with run_pgbouncer(card_url, "transaction") as pooled:
        settings = card_settings(keys, tmp_path, pooled, bank, str(merchant.http.base_url))
        admin = f"http://{settings['card_admin_listen']}"
        command = module("subgraphs.card.service", **{name.upper(): value for name, value in settings.items()})
        child = Child(Process(name="card", command=command, ready=probes.http(f"{admin}/health/live")))
        await child.start()
        try:
            async with httpx.AsyncClient(trust_env=False) as http:
                response = await http.get(f"{admin}/health/ready")
            assert (response.status_code, response.json()["checks"]["database"]) == (503, "SharedSessions")
            async with connect_card(bank, merchant, settings) as card:
                with pytest.raises(Unavailable, match="the top-ups' database"):
                    await card.top_up(await bank.open("alice", "0"), rub("1"), "k")
        finally:
            await child.stop()
