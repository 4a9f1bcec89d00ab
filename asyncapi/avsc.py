"""`python -m asyncapi.avsc`: generate Avro schemas of the events in `asyncapi/avro/`.

The topic carries JSON. The Avro schemas are for bridges, for example a connector or a data lake's table.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic_avro.to_avro.types import AvroTypeConverter

NAMESPACE: Final = "wallet.events"


def avro_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the Avro record schema of an event model.

    Field names are those of the JSON. Amounts stay decimal strings, times are microseconds, and an optional field is
    a union with null.
    """
    schema = _inline_named_values(model.model_json_schema(mode="serialization"))
    fields = AvroTypeConverter(schema).fields_to_avro_dicts(schema)
    return {"type": "record", "namespace": NAMESPACE, "name": schema["title"], "fields": fields}


def _inline_named_values(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with references to objects and enums only.

    pydantic-avro converts any other named type, such as a constrained string, to an empty record.
    """
    definitions: dict[str, dict[str, Any]] = schema.get("$defs", {})
    values = {
        f"#/$defs/{name}": definition
        for name, definition in definitions.items()
        if definition.get("type") != "object" and "enum" not in definition
    }

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(item) for item in node]
        if not isinstance(node, dict):
            return node
        value = values.get(node.get("$ref", ""))
        if value is not None:
            node = {**value, **{key: item for key, item in node.items() if key != "$ref"}}
        return {key: inline(item) for key, item in node.items()}

    inlined: dict[str, Any] = inline(schema)
    return inlined


def main() -> None:
    """Write one Avro schema for each JSON schema of the contract."""
    here = Path(__file__).parent
    (here / "avro").mkdir(exist_ok=True)
    for contract in sorted((here / "schemas").glob("*.json")):
        model = getattr(import_module(f"asyncapi.models.{contract.stem}"), json.loads(contract.read_text())["title"])
        schema = json.dumps(avro_schema(model), indent=2, ensure_ascii=False)
        (here / "avro" / f"{contract.stem}.avsc").write_text(schema + "\n")


if __name__ == "__main__":
    main()
