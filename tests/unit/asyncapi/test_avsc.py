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


class Nested(BaseModel):
    id: UUID


class Record(BaseModel):
    word: Word
    words: dict[str, Word] | None = None
    first: Nested
    second: Annotated[Nested, Field(description="Second reference.")]


def types_by_field(schema: dict[str, Any]) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in schema["fields"]}


class TestAvroSchema:
    @pytest.mark.parametrize("model", [TransferEvent, TopUpEvent, Record])
    def test_schema_is_valid_avro(self, model: type[BaseModel]) -> None:
        parsed = parse_schema(avro_schema(model))
        assert isinstance(parsed, dict)
        assert parsed["name"] == f"wallet.events.{model.__name__}"

    def test_named_values_are_inlined_and_objects_become_records(self) -> None:
        nested = {
            "type": "record",
            "name": "Nested",
            "fields": [{"name": "id", "type": {"type": "string", "logicalType": "uuid"}}],
        }
        assert types_by_field(avro_schema(Record)) == {
            "word": "string",
            "words": ["null", {"type": "map", "values": "string"}],
            "first": nested,
            "second": "Nested",
        }

    def test_money_is_a_string_and_time_is_microseconds(self) -> None:
        fields = types_by_field(avro_schema(TopUpEvent))
        assert (fields["amount"], fields["currency"]) == ("string", "string")
        assert fields["occurredAt"] == {"type": "long", "logicalType": "timestamp-micros"}
        assert types_by_field(fields["sender"])["balanceAfter"] == "string"
