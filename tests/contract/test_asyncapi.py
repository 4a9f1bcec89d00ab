"""`asyncapi/asyncapi.yaml`, parsed by AsyncAPI's parser, agrees with the code."""

import json
from typing import Any

import pytest

from asyncapi.topics import DEAD_LETTER_TOPIC, OPERATIONS_TOPIC, TOP_UP_COMPLETED, TRANSFER_COMPLETED
from stack.process import ROOT
from subgraphs.analytics.service import __main__ as analytics
from tests.node import run_script

OPERATIONS = [TRANSFER_COMPLETED, TOP_UP_COMPLETED]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Parsed document with resolved references, and the parser's diagnostics."""
    parsed: dict[str, Any] = run_script(
        "asyncapi.mjs", str(ROOT / "asyncapi" / "asyncapi.yaml"), package="@asyncapi/parser"
    )
    return parsed


@pytest.fixture
def channels(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Channels by address."""
    return {channel["address"]: channel for channel in document["channels"]}


@pytest.mark.slow
class TestDocument:
    def test_parser_reports_no_problem(self, document: dict[str, Any]) -> None:
        # The parser recommends version 3.1, which has no feature that is needed here.
        assert [entry for entry in document["diagnostics"] if entry["code"] != "asyncapi-latest-version"] == []


class TestChannels:
    def test_channels_match_the_topic_constants(self, channels: dict[str, Any]) -> None:
        assert list(channels) == [OPERATIONS_TOPIC, DEAD_LETTER_TOPIC]

    def test_operations_topic_uses_the_event_schemas(self, channels: dict[str, Any]) -> None:
        schemas = [
            json.loads((ROOT / "asyncapi" / "schemas" / name).read_text())
            for name in ("transfer_event.json", "topup_event.json")
        ]
        messages = channels[OPERATIONS_TOPIC]["messages"]
        assert [message["name"] for message in messages] == OPERATIONS
        for message, schema in zip(messages, schemas, strict=True):
            assert message["payload"]["$id"] == schema["$id"]
            assert list(message["payload"]["properties"]) == list(schema["properties"])
            assert message["payload"]["properties"]["sender"]["required"] == ["accountId", "version", "balanceAfter"]

    def test_messages_are_cloud_events_in_binary_mode(self, channels: dict[str, Any]) -> None:
        for message in channels[OPERATIONS_TOPIC]["messages"]:
            headers = message["headers"]["properties"]
            assert headers["ce_type"]["enum"] == OPERATIONS
            assert headers["ce_specversion"]["const"] == "1.0"
            assert headers["content-type"]["const"] == message["contentType"] == "application/json"
            assert message["bindings"]["kafka"]["key"]["format"] == "uuid"

    def test_dead_letter_headers_name_the_source(self, channels: dict[str, Any]) -> None:
        (message,) = channels[DEAD_LETTER_TOPIC]["messages"]
        assert sorted(message["headers"]["required"]) == sorted(message["headers"]["properties"])
        assert message["headers"]["properties"]["dlq_topic"]["const"] == OPERATIONS_TOPIC


class TestOperations:
    def test_operations_have_the_right_direction_and_channel(self, document: dict[str, Any]) -> None:
        operations = {
            operation["id"]: (operation["action"], *operation["channels"], operation["messages"])
            for operation in document["operations"]
        }
        assert operations == {
            "publishOperations": ("send", OPERATIONS_TOPIC, OPERATIONS),
            "storeHistory": ("receive", OPERATIONS_TOPIC, OPERATIONS),
            "publishDeadLetters": ("send", DEAD_LETTER_TOPIC, ["wallet.dead.letter"]),
        }

    def test_consumer_group_matches_the_code(self, document: dict[str, Any]) -> None:
        (store,) = [operation for operation in document["operations"] if operation["id"] == "storeHistory"]
        assert store["bindings"]["kafka"]["groupId"]["const"] == analytics.NAME
