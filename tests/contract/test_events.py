"""Events that the bank publishes conform to the contract in `asyncapi/`."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest
import yaml
from aiokafka.structs import ConsumerRecord
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event, to_binary_event
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from pydantic import create_model

from asyncapi.avsc import avro_schema
from asyncapi.models.topup_event import TopUpEvent
from asyncapi.models.transfer_event import TransferEvent
from asyncapi.topics import DEAD_LETTER_TOPIC, OPERATIONS_TOPIC
from kit.rpc.request_context import RequestContext, current_request
from kit.telemetry.tracing import TraceContext
from stack.engines.children import Kafka
from stack.ports import free_ports
from stack.process import ROOT
from subgraphs.analytics.service.application import consumer
from tests.conftest import Keys
from tests.integration.bank.harness import RunningBank, rub, run_bank
from tests.integration.bank.topic_reader import Message, reading
from wallet.money import MAX_AMOUNT, Money

SCHEMAS = {
    "wallet.transfer.completed": "transfer_event.json",
    "wallet.topup.completed": "topup_event.json",
}
MODELS: dict[str, type[TransferEvent | TopUpEvent]] = {
    "wallet.transfer.completed": TransferEvent,
    "wallet.topup.completed": TopUpEvent,
}
CONTRACT: dict[str, Any] = yaml.safe_load((ROOT / "asyncapi" / "asyncapi.yaml").read_text())


def schema_validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def load_schema(ce_type: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((ROOT / "asyncapi" / "schemas" / SCHEMAS[ce_type]).read_text())
    return schema


def payload_validator(ce_type: str) -> Draft202012Validator:
    return schema_validator(load_schema(ce_type))


HEADERS: dict[str, Any] = CONTRACT["components"]["schemas"]["CloudEventHeaders"]
DEAD_LETTER_HEADERS: dict[str, Any] = CONTRACT["components"]["messages"]["Unreadable"]["headers"]


def load_avro_schema(name: str) -> Any:
    return fastavro.parse_schema(json.loads((ROOT / "asyncapi" / "avro" / name).with_suffix(".avsc").read_text()))


def avro_round_trip(record: dict[str, Any], writer: Any, reader: Any) -> Any:
    """Write a record with one schema and read it with another."""
    file = io.BytesIO()
    fastavro.schemaless_writer(file, writer, record, strict=True)
    file.seek(0)
    return fastavro.schemaless_reader(file, writer, reader)


def example_event() -> dict[str, Any]:
    """Return an event that is valid as a transfer and as a top-up."""
    side = {"accountId": "123e4567-e89b-12d3-a456-426614174000", "version": 1, "balanceAfter": "-1.00"}
    return {
        "transferId": "123e4567-e89b-12d3-a456-426614174000",
        "occurredAt": "2025-01-01T00:00:00Z",
        "amount": "1.00",
        "currency": "RUB",
        "sender": dict(side),
        "recipient": dict(side),
    }


async def make_operations(bank: RunningBank) -> set[str]:
    """Make a transfer and deposits with various descriptors, amounts and currencies; return the transfer ids."""
    alice, card = bank.user("alice"), bank.service("card")
    mine, bobs = await bank.open("alice", "10.00"), await bank.open("bob", "0")
    full = {f"{n:0128}": "ж" * 128 for n in range(16)}
    receipts = [
        await alice(bank.client.transfer(mine, bobs, rub("2.50"), "transfer")),
        await card(bank.client.deposit(mine, rub("5"), "with a descriptor", {"topUpId": "t1", "cardBrand": "МИР"})),
        await card(bank.client.deposit(mine, rub("5"), "without one", {})),
        await card(bank.client.deposit(mine, rub("5"), "with the longest one", full)),
        await card(bank.client.deposit(mine, Money(MAX_AMOUNT, "RUB"), "the maximum amount", {})),
    ]
    for currency, amount in (("JPY", "7"), ("KWD", "0.001"), ("CLF", "0.0001")):
        account = await bank.open("alice", "0", currency)
        money = Money.parse(amount, currency)
        receipts.append(await card(bank.client.deposit(account, money, f"in {currency}", {})))
    return {str(receipt.transfer.id) for receipt in receipts}


@pytest.fixture
async def published(ledger_url: str, keys: Keys, tmp_path: Path) -> AsyncIterator[list[Message]]:
    """Messages that a bank publishes for the operations of `make_operations`."""
    async with (
        Kafka(*free_ports(1)) as kafka,
        run_bank(keys, tmp_path, ledger_url, kafka_bootstrap_servers=kafka.bootstrap_servers) as bank,
        reading(kafka) as topic,
    ):
        yield await topic.until_read(await make_operations(bank))


class TestTraces:
    async def test_only_events_of_sampled_traces_carry_traceparent(
        self, ledger_url: str, keys: Keys, tmp_path: Path
    ) -> None:
        sampled, unsampled = (
            TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", flags) for flags in (1, 0)
        )
        async with (
            Kafka(*free_ports(1)) as kafka,
            run_bank(keys, tmp_path, ledger_url, kafka_bootstrap_servers=kafka.bootstrap_servers) as bank,
            reading(kafka) as topic,
        ):
            mine, bobs = await bank.open("alice"), await bank.open("bob")
            traces = {}
            for trace in (sampled, unsampled):
                reset = current_request.set(RequestContext("test", token=keys.user("alice"), trace=trace))
                receipt = await bank.client.transfer(mine, bobs, rub("1"), str(trace.flags))
                traces[str(receipt.transfer.id)] = trace
                current_request.reset(reset)
            messages = await topic.until_read(set(traces))
        for message in messages:
            schema_validator(HEADERS).validate(message.headers)
            assert message.headers.get("traceparent") == traces[message.transfer_id].sampled_traceparent
        assert len(messages) == 2


class TestEvents:
    async def test_published_events_are_valid_against_their_schemas(self, published: list[Message]) -> None:
        for message in published:
            payload_validator(message.headers["ce_type"]).validate(message.body)
            schema_validator(HEADERS).validate(message.headers)
            assert message.headers.keys() == HEADERS["properties"].keys() - {"ce_ledgerepoch", "traceparent"}
            assert message.headers["ce_id"] == message.body["transferId"]
            assert message.key == message.body["sender"]["accountId"]
        kinds = [message.headers["ce_type"] for message in published]
        assert (kinds.count("wallet.transfer.completed"), kinds.count("wallet.topup.completed")) == (1, 7)
        assert sum("descriptor" in message.body for message in published) == 2

    async def test_published_events_are_cloud_events_in_binary_mode(self, published: list[Message]) -> None:
        """The CloudEvents SDK decodes the bank's messages, and encodes them again with the differences noted below."""
        for message in published:
            sent = {name: value.encode() for name, value in message.headers.items()}
            event = from_kafka_event(KafkaMessage(sent, message.key, message.value))
            assert (event.get_id(), event.get_source()) == (message.body["transferId"], "/wallet/bank")
            assert (event.get_type(), event.get_specversion()) == (message.headers["ce_type"], "1.0")
            assert event.get_time() == datetime.fromisoformat(message.body["occurredAt"])
            assert event.get_datacontenttype() == "application/json"
            assert event.get_data() == message.body
            written = to_binary_event(event)
            assert (json.loads(written.value), written.key) == (message.body, message.key)
            # The SDK also writes the key as a `ce_partitionkey` header, and formats UTC differently.
            assert written.headers == {
                **sent,
                "ce_partitionkey": message.key.encode(),
                "ce_time": message.body["occurredAt"].encode(),
            }

    async def test_published_events_survive_an_avro_round_trip(self, published: list[Message]) -> None:
        for message in published:
            ce_type = message.headers["ce_type"]
            schema, model = load_avro_schema(SCHEMAS[ce_type]), MODELS[ce_type]
            event = model.model_validate_json(message.value)
            assert model.model_validate(avro_round_trip(event.model_dump(by_alias=True), schema, schema)) == event


class TestContract:
    def test_messages_reference_the_event_schemas(self) -> None:
        messages = CONTRACT["components"]["messages"].values()
        assert {m["name"]: Path(m["payload"]["$ref"]).name for m in messages if "payload" in m} == SCHEMAS

    @pytest.mark.parametrize("ce_type", SCHEMAS)
    def test_event_schemas_are_valid_json_schemas(self, ce_type: str) -> None:
        Draft202012Validator.check_schema(load_schema(ce_type))

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
    def test_invalid_event_is_rejected_by_its_schema(self, ce_type: str, path: tuple[str, ...], wrong: Any) -> None:
        event = example_event()
        payload_validator(ce_type).validate(event)
        *parents, last = path
        parent = event
        for name in parents:
            parent = parent[name]
        parent[last] = wrong
        with pytest.raises(ValidationError):
            payload_validator(ce_type).validate(event)


class TestAvro:
    async def test_avro_schemas_with_and_without_an_optional_field_are_compatible(self) -> None:
        later = create_model("TransferEvent", __base__=TransferEvent, note=(str | None, None))
        old, new = load_avro_schema("transfer_event.json"), fastavro.parse_schema(avro_schema(later))
        record = TransferEvent.model_validate(example_event()).model_dump(by_alias=True)
        assert avro_round_trip(record, old, new) == {**record, "note": None}
        assert avro_round_trip({**record, "note": "n"}, new, old) == record


class RecordingProducer:
    """Producer that records messages instead of sending them."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []

    async def send(self, topic: str, **message: Any) -> "asyncio.Future[None]":
        self.messages.append((topic, message))
        confirmation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        confirmation.set_result(None)
        return confirmation


class TestDeadLetters:
    async def test_dead_letter_conforms_to_the_contract(self) -> None:
        headers = [("ce_type", b"wallet.unheard.of"), ("mine", b"\xff")]
        message = ConsumerRecord(OPERATIONS_TOPIC, 3, 42, 0, 0, b"key", b"{nonsense", 0, 3, 9, headers)
        producer = RecordingProducer()
        await consumer._send_dead_letters(producer, [(message, "not JSON")])
        ((topic, letter),) = producer.messages
        assert topic == DEAD_LETTER_TOPIC == CONTRACT["channels"]["deadLetters"]["address"]
        assert (letter["key"], letter["value"]) == (message.key, message.value)
        assert letter["headers"][:2] == headers
        added = {name: value.decode() for name, value in letter["headers"][2:]}
        assert list(added) == DEAD_LETTER_HEADERS["required"]
        schema_validator(DEAD_LETTER_HEADERS).validate(added)
