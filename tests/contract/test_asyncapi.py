"""AsyncAPI's own parser reads `asyncapi/asyncapi.yaml`, and finds in it what the code does."""

import json
from typing import Any

import pytest

from asyncapi.topics import DEAD_LETTER_TOPIC, OPERATIONS_TOPIC, TOP_UP_COMPLETED, TRANSFER_COMPLETED
from stack.process import ROOT
from subgraphs.analytics.service import __main__ as analytics
from tests.node import judged

OPERATIONS = [TRANSFER_COMPLETED, TOP_UP_COMPLETED]


@pytest.fixture(scope="module")
def read() -> dict[str, Any]:
    """The document as the parser reads it, references followed, and its diagnostics."""
    document: dict[str, Any] = judged("asyncapi.mjs", str(ROOT / "asyncapi" / "asyncapi.yaml"), by="@asyncapi/parser")
    return document


@pytest.fixture
def channels(read: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By address."""
    return {channel["address"]: channel for channel in read["channels"]}


class TestDocument:
    def test_the_parser_has_nothing_against_it(self, read: dict[str, Any]) -> None:
        # It advises 3.1, of which nothing is needed here.
        assert [each for each in read["diagnostics"] if each["code"] != "asyncapi-latest-version"] == []


class TestChannels:
    def test_are_the_topics_that_the_code_names(self, channels: dict[str, Any]) -> None:
        assert list(channels) == [OPERATIONS_TOPIC, DEAD_LETTER_TOPIC]

    def test_carry_the_events_by_their_schemas(self, channels: dict[str, Any]) -> None:
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

    def test_carry_cloud_events_in_binary_mode(self, channels: dict[str, Any]) -> None:
        for message in channels[OPERATIONS_TOPIC]["messages"]:
            headers = message["headers"]["properties"]
            assert headers["ce_type"]["enum"] == OPERATIONS
            assert headers["ce_specversion"]["const"] == "1.0"
            assert headers["content-type"]["const"] == message["contentType"] == "application/json"
            assert message["bindings"]["kafka"]["key"]["format"] == "uuid"

    def test_the_dead_letters_say_where_they_are_from(self, channels: dict[str, Any]) -> None:
        (message,) = channels[DEAD_LETTER_TOPIC]["messages"]
        assert sorted(message["headers"]["required"]) == sorted(message["headers"]["properties"])
        assert message["headers"]["properties"]["dlq_topic"]["const"] == OPERATIONS_TOPIC


class TestOperations:
    def test_are_who_sends_and_who_receives(self, read: dict[str, Any]) -> None:
        told = {each["id"]: (each["action"], *each["channels"], each["messages"]) for each in read["operations"]}
        assert told == {
            "publishOperations": ("send", OPERATIONS_TOPIC, OPERATIONS),
            "storeHistory": ("receive", OPERATIONS_TOPIC, OPERATIONS),
            "publishDeadLetters": ("send", DEAD_LETTER_TOPIC, ["wallet.dead.letter"]),
        }

    def test_the_history_is_stored_by_the_group_that_it_names(self, read: dict[str, Any]) -> None:
        (store,) = [each for each in read["operations"] if each["id"] == "storeHistory"]
        assert store["bindings"]["kafka"]["groupId"]["const"] == analytics.NAME
