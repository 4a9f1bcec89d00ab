"""What the bank publishes is what `asyncapi/` promises."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from stack.parts import Kafka
from stack.ports import free_ports
from stack.process import ROOT
from tests.conftest import Keys
from tests.integration.bank.running import RunningBank, rub, running
from tests.integration.bank.topic import Message, reading
from wallet.money import MAX_AMOUNT, Money

SCHEMAS = {
    "wallet.transfer.completed": "transfer_event.json",
    "wallet.topup.completed": "topup_event.json",
}
CONTRACT: dict[str, Any] = yaml.safe_load((ROOT / "asyncapi" / "asyncapi.yaml").read_text())


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def schema(ce_type: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((ROOT / "asyncapi" / "schemas" / SCHEMAS[ce_type]).read_text())
    return read


def payload(ce_type: str) -> Draft202012Validator:
    return validator(schema(ce_type))


def headers() -> Draft202012Validator:
    return validator(CONTRACT["components"]["schemas"]["CloudEventHeaders"])


async def every_kind(bank: RunningBank) -> set[str]:
    """One operation of every kind there is; their transfers' ids."""
    alice, card = bank.user("alice"), bank.service("card")
    mine, bobs = await bank.open("alice", "10.00"), await bank.open("bob", "0")
    full = {f"{n:0128}": "ж" * 128 for n in range(16)}
    made = [
        await alice(bank.client.transfer(mine, bobs, rub("2.50"), "transfer")),
        await card(bank.client.deposit(mine, rub("5"), "with a descriptor", {"topUpId": "t1", "cardBrand": "МИР"})),
        await card(bank.client.deposit(mine, rub("5"), "without one", {})),
        await card(bank.client.deposit(mine, rub("5"), "with the longest one", full)),
        await card(bank.client.deposit(mine, Money(MAX_AMOUNT, "RUB"), "the most there is", {})),
    ]
    for currency, amount in (("JPY", "7"), ("KWD", "0.001"), ("CLF", "0.0001")):
        account = await bank.open("alice", "0", currency)
        money = Money.parse(amount, currency)
        made.append(await card(bank.client.deposit(account, money, f"in {currency}", {})))
    return {str(receipt.transfer.id) for receipt in made}


@pytest.fixture
async def published(ledger_url: str, keys: Keys, tmp_path: Path) -> AsyncIterator[list[Message]]:
    """What real operations have put on a real topic."""
    async with (
        Kafka(*free_ports(1)) as kafka,
        running(keys, tmp_path, ledger_url, kafka_bootstrap_servers=kafka.bootstrap_servers) as bank,
        reading(kafka) as topic,
    ):
        yield await topic.until_read(await every_kind(bank))


class TestEvents:
    async def test_every_event_is_valid_by_its_schema(self, published: list[Message]) -> None:
        for message in published:
            payload(message.headers["ce_type"]).validate(message.body)
            headers().validate(message.headers)
            assert message.headers["ce_id"] == message.body["transferId"]
            assert message.key == message.body["sender"]["accountId"]
        kinds = [message.headers["ce_type"] for message in published]
        assert (kinds.count("wallet.transfer.completed"), kinds.count("wallet.topup.completed")) == (1, 7)
        assert sum("descriptor" in message.body for message in published) == 2


class TestContract:
    def test_its_messages_carry_these_schemas(self) -> None:
        messages = CONTRACT["components"]["messages"].values()
        assert {m["name"]: Path(m["payload"]["$ref"]).name for m in messages if "payload" in m} == SCHEMAS

    @pytest.mark.parametrize("ce_type", SCHEMAS)
    def test_the_schemas_are_schemas(self, ce_type: str) -> None:
        Draft202012Validator.check_schema(schema(ce_type))

    @pytest.mark.parametrize(
        ("path", "wrong"),
        [
            (("amount",), 10.0),
            (("amount",), "1e2"),
            (("amount",), "-1.00"),
            (("currency",), "rub"),
            (("occurredAt",), "yesterday"),
            (("transferId",), "me"),
            (("sender", "version"), 0),
            (("recipient", "balanceAfter"), 1),
            (("recipient", "accountId"), None),
        ],
    )
    @pytest.mark.parametrize("ce_type", SCHEMAS)
    def test_the_schemas_refuse_what_is_no_event(self, ce_type: str, path: tuple[str, ...], wrong: Any) -> None:
        side = {"accountId": "123e4567-e89b-12d3-a456-426614174000", "version": 1, "balanceAfter": "-1.00"}
        event: dict[str, Any] = {
            "transferId": "123e4567-e89b-12d3-a456-426614174000",
            "occurredAt": "2025-01-01T00:00:00Z",
            "amount": "1.00",
            "currency": "RUB",
            "sender": dict(side),
            "recipient": dict(side),
        }
        payload(ce_type).validate(event)
        *parents, last = path
        place = event
        for name in parents:
            place = place[name]
        place[last] = wrong
        with pytest.raises(ValidationError):
            payload(ce_type).validate(event)
