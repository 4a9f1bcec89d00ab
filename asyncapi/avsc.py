"""`python -m asyncapi.avsc`: writes the events as Avro schemas, for readers whose tools want those.

The topic carries JSON; a bridge to Avro (a connector, a data lake's table) starts from `asyncapi/avro/`.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic_avro.to_avro.types import AvroTypeConverter

NAMESPACE: Final = "wallet.events"


def avro_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The event's record, its fields named as in JSON. Amounts stay decimal strings, times are microseconds, what is
    optional is a union with null.
    """
    schema = _with_values_in_place(model.model_json_schema(mode="serialization"))
    fields = AvroTypeConverter(schema).fields_to_avro_dicts(schema)
    return {"type": "record", "namespace": NAMESPACE, "name": schema["title"], "fields": fields}


def _with_values_in_place(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with references to objects only: pydantic-avro makes an empty record of anything else that is named,
    a constrained string for one.
    """
    named: dict[str, dict[str, Any]] = schema.get("$defs", {})
    values = {
        f"#/$defs/{name}": each for name, each in named.items() if each.get("type") != "object" and "enum" not in each
    }

    def placed(part: Any) -> Any:
        if isinstance(part, list):
            return [placed(each) for each in part]
        if not isinstance(part, dict):
            return part
        value = values.get(part.get("$ref", ""))
        if value is not None:
            part = {**value, **{key: each for key, each in part.items() if key != "$ref"}}
        return {key: placed(each) for key, each in part.items()}

    whole: dict[str, Any] = placed(schema)
    return whole


def main() -> None:
    """Writes a schema for every event of the contract."""
    here = Path(__file__).parent
    (here / "avro").mkdir(exist_ok=True)
    for contract in sorted((here / "schemas").glob("*.json")):
        model = getattr(import_module(f"asyncapi.models.{contract.stem}"), json.loads(contract.read_text())["title"])
        schema = json.dumps(avro_schema(model), indent=2, ensure_ascii=False)
        (here / "avro" / f"{contract.stem}.avsc").write_text(schema + "\n")


if __name__ == "__main__":
    main()
