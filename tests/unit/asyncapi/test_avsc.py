from typing import Annotated, Any
from uuid import UUID

import pytest
from fastavro import parse_schema
from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from asyncapi.avsc import avro_schema
from asyncapi.models.topup_event import TopUpEvent
from asyncapi.models.transfer_event import TransferEvent

Word = TypeAliasType("Word", Annotated[str, Field(max_length=8)])


class Part(BaseModel):
    id: UUID


class Whole(BaseModel):
    word: Word
    words: dict[str, Word] | None = None
    first: Part
    second: Annotated[Part, Field(description="The other one.")]


def types(schema: dict[str, Any]) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in schema["fields"]}


class TestAvroSchema:
    @pytest.mark.parametrize("model", [TransferEvent, TopUpEvent, Whole])
    def test_is_one(self, model: type[BaseModel]) -> None:
        parsed = parse_schema(avro_schema(model))
        assert isinstance(parsed, dict)
        assert parsed["name"] == f"wallet.events.{model.__name__}"

    def test_named_values_stay_values_and_parts_are_records(self) -> None:
        part = {
            "type": "record",
            "name": "Part",
            "fields": [{"name": "id", "type": {"type": "string", "logicalType": "uuid"}}],
        }
        assert types(avro_schema(Whole)) == {
            "word": "string",
            "words": ["null", {"type": "map", "values": "string"}],
            "first": part,
            "second": "Part",
        }

    def test_money_is_text_and_time_is_microseconds(self) -> None:
        of = types(avro_schema(TopUpEvent))
        assert (of["amount"], of["currency"]) == ("string", "string")
        assert of["occurredAt"] == {"type": "long", "logicalType": "timestamp-micros"}
        assert types(of["sender"])["balanceAfter"] == "string"
