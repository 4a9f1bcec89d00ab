"""Card service as in production, with a real database, a real bank and the sandbox acquirer."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kit.rpc.channel import ClientLimits
from stack import probes
from stack.ports import free_ports
from stack.process import Child, Output, Process, module
from subgraphs.card.client import CardClient, CardDetails, CreatedTopUp, TopUp
from subgraphs.card.service.__main__ import serve
from subgraphs.card.service.application.saga import SagaLimits
from subgraphs.card.service.settings import Settings
from tests.conftest import SERVICES, USERS, Keys
from tests.integration.bank.harness import Caller, RunningBank, until_ready
from tests.integration.sandbox.running import API_KEY, SECRET, Merchant
from tests.waiting import until
from wallet.errors import Unavailable
from wallet.money import Money

VISA = "4242424242424242"


def card_details(number: str = VISA, **overrides: Any) -> CardDetails:
    card = {"number": number, "expiry_month": 12, "expiry_year": datetime.now(UTC).year + 2, "cvv": "123", **overrides}
    return CardDetails(**card)


@dataclass(frozen=True)
class RunningCard:
    """Running card service with a client and its dependencies."""

    client: CardClient
    sql: asyncpg.Pool
    bank: RunningBank
    admin: str
    webhooks: str
    merchant: Merchant
    settings: Mapping[str, str]

    def user(self, subject: str) -> Caller:
        return self.bank.user(subject)

    async def top_up(
        self, account: UUID, amount: Money, key: str, number: str = VISA, caller: str = "alice", **overrides: Any
    ) -> TopUp:
        return (await self.create(account, amount, key, number, caller, **overrides)).top_up

    async def create(
        self,
        account: UUID,
        amount: Money,
        key: str,
        number: str = VISA,
        caller: str = "alice",
        raw_key: str = "",
        **overrides: Any,
    ) -> CreatedTopUp:
        details = card_details(number, **overrides)
        return await self.user(caller)(self.client.create_top_up(account, amount, details, key, raw_key))

    async def wait_until_final(self, id_: UUID, caller: str = "alice", within: float = 10) -> TopUp:
        """Return the top-up once it is final."""

        async def is_final() -> TopUp | None:
            with suppress(Unavailable):  # while the process restarts
                top_up = await self.user(caller)(self.client.get_top_up(id_))
                return top_up if top_up.status in {"COMPLETED", "DECLINED", "VOIDED", "REFUNDED"} else None
            return None

        top_up = await until(is_final, within=within, every=0.02)
        assert top_up is not None
        return top_up

    async def payment(self, id_: UUID) -> dict[str, Any] | None:
        """Return the acquirer's payment of a top-up."""
        response = await self.merchant.http.get("/v1/payments", params={"idempotencyKey": f"{id_}:authorize"})
        payments = response.json()["payments"]
        return payments[0] if payments else None

    async def assert_books_agree(self, top_up: TopUp) -> None:
        """Assert that the captured minus the refunded amount is the sum of the top-up's deposits in the ledger."""
        payment = await self.payment(top_up.id)
        kept = Decimal(0) if payment is None else Decimal(payment["captured"]) - Decimal(payment["refunded"])
        query = "SELECT coalesce(sum(amount), 0) FROM transfers WHERE kind = 'DEPOSIT' AND descriptor->>'topUpId' = $1"
        credited = await self.bank.sql.fetchval(query, str(top_up.id))
        assert kept == credited
        assert credited == (top_up.amount.amount if top_up.status == "COMPLETED" else 0)


def card_settings(
    keys: Keys, folder: Path, database_url: str, bank: RunningBank, acquirer_url: str, **overrides: Any
) -> dict[str, str]:
    """Return the settings of a card service by name, with short time-outs and free ports unless overridden."""
    folder.mkdir(exist_ok=True)
    files = {}
    for number, issuer in enumerate((USERS, *SERVICES)):
        file = folder / f"{number}.jwks.json"
        file.write_text(keys.jwks(issuer))
        files[issuer] = str(file)
    key_file = folder / "card.pem"
    key_file.write_bytes(keys.private("card").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    grpc_port, admin_port, webhook_port = free_ports(3)
    settings = {
        "card_grpc_listen": f"127.0.0.1:{grpc_port}",
        "card_admin_listen": f"127.0.0.1:{admin_port}",
        "card_webhook_listen": f"127.0.0.1:{webhook_port}",
        "card_database_url": database_url,
        "bank_grpc_target": bank.target,
        "service_key_file": key_file,
        "acquirer_url": acquirer_url,
        "acquirer_api_key": API_KEY,
        "acquirer_webhook_secret": SECRET,
        "acquirer_timeout_seconds": 1.0,
        "acquirer_budget_seconds": 0.9,
        "acquirer_circuit_failures": 1_000,
        "card_limits": json.dumps({"RUB": {"top_up": "10000", "day": "50000"}}),
        "card_fingerprint_secret": "fingerprint secret of the integration tests",
        # Tests share callers and cards, so the decline limits are high. The tests of these limits set lower ones.
        "card_declines_per_customer": 1_000,
        "card_declines_per_card": 1_000,
        "auth_issuer": USERS,
        "auth_jwks": files[USERS],
        "auth_services": json.dumps({service: files[service] for service in SERVICES}),
        **overrides,
    }
    return {name: str(value) for name, value in settings.items()}


QUICK_SAGA = SagaLimits(interval_seconds=0.05, first_pause_seconds=0.05, longest_pause_seconds=0.2)


@asynccontextmanager
async def run_card(
    bank: RunningBank, merchant: Merchant, settings: Mapping[str, str], *, poll_seconds: float = 60
) -> AsyncIterator[RunningCard]:
    """Run the card service in this process, with short pauses between retries.

    Args:
        bank: running bank.
        merchant: client of the acquirer.
        settings: settings of the service.
        poll_seconds: interval at which the service reads subscribed top-ups. The default is so long that a missing
            notification fails the test.
    """
    parsed = {**settings, **{name: json.loads(settings[name]) for name in ("auth_services", "card_limits")}}
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(Settings(**parsed), stop, saga_limits=QUICK_SAGA, poll_seconds=poll_seconds))
    try:
        async with connect_card(bank, merchant, settings) as card:
            await until_ready(card.admin, serving)
            yield card
    finally:
        stop.set()
        await serving


def card_child(settings: Mapping[str, str], output: Output | None = None) -> Child:
    """Return the card service as a child process that is not started yet."""
    upper = {name.upper(): value for name, value in settings.items()}
    ready = probes.http(f"http://{settings['card_admin_listen']}/health/ready")
    return Child(Process(name="card", command=module("subgraphs.card.service", **upper), ready=ready), output=output)


@asynccontextmanager
async def connect_card(
    bank: RunningBank, merchant: Merchant, settings: Mapping[str, str]
) -> AsyncIterator[RunningCard]:
    """Connect to a card service that runs in this or another process."""
    async with (
        asyncpg.create_pool(settings["card_database_url"], min_size=0, max_size=4) as sql,
        CardClient.connect(settings["card_grpc_listen"], limits=ClientLimits(timeout_seconds=20)) as client,
    ):
        admin, webhooks = (f"http://{settings[f'card_{name}_listen']}" for name in ("admin", "webhook"))
        yield RunningCard(client, sql, bank, admin, f"{webhooks}/webhooks/acquirer", merchant, settings)
