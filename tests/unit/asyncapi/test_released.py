import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from asyncapi.released import IncompatibleSchemas, release_schemas
from stack.process import ROOT


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    """Copy of the project's event schemas and of `released.json`."""
    shutil.copytree(ROOT / "asyncapi" / "schemas", tmp_path / "schemas")
    shutil.copy(ROOT / "asyncapi" / "released.json", tmp_path)
    return tmp_path


def set_value(file: Path, *path: str, value: Any) -> None:
    document = parent = json.loads(file.read_text())
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    file.write_text(json.dumps(document))


class TestReleaseSchemas:
    def test_unchanged_schemas_leave_the_file_unchanged(self, contract: Path) -> None:
        before = (contract / "released.json").read_text()
        release_schemas(contract)
        assert (contract / "released.json").read_text() == before

    def test_added_property_cannot_be_removed_again(self, contract: Path) -> None:
        event = contract / "schemas" / "transfer_event.json"
        before = event.read_text()
        set_value(event, "properties", "note", value={"type": "string"})
        release_schemas(contract)
        event.write_text(before)
        with pytest.raises(
            IncompatibleSchemas, match=r"asyncapi/schemas/transfer_event\.json: #/properties/note: removed"
        ):
            release_schemas(contract)

    def test_breaking_change_is_refused_with_place_and_remedy(self, contract: Path) -> None:
        before = (contract / "released.json").read_text()
        set_value(
            contract / "schemas" / "topup_event.json", "$defs", "Posting", "properties", "version", "minimum", value=0
        )
        with pytest.raises(IncompatibleSchemas) as error:
            release_schemas(contract)
        first, *advice = str(error.value).splitlines()
        assert first == "asyncapi/schemas/topup_event.json: #/$defs/Posting/properties/version/minimum: is 0, was 1"
        assert "only optional properties may be added" in advice[0]
        assert (contract / "released.json").read_text() == before

    def test_new_event_is_recorded(self, contract: Path) -> None:
        (contract / "schemas" / "refund_event.json").write_text('{"title": "RefundEvent", "type": "object"}')
        release_schemas(contract)
        (contract / "schemas" / "refund_event.json").unlink()
        with pytest.raises(IncompatibleSchemas, match=r"asyncapi/schemas/refund_event\.json: removed"):
            release_schemas(contract)

    def test_same_edit_in_schema_and_released_file_is_refused(self, contract: Path) -> None:
        """A search-and-replace over all files makes the same edit in both files."""
        for file in (contract / "schemas" / "transfer_event.json", contract / "released.json"):
            file.write_text(file.read_text().replace("balanceAfter", "balance"))
        with pytest.raises(IncompatibleSchemas, match="was edited by hand"):
            release_schemas(contract)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": 1, "schemas": 2}', "<<<<<<< HEAD"])
    def test_damaged_released_file_is_refused(self, contract: Path, text: str) -> None:
        (contract / "released.json").write_text(text)
        with pytest.raises(IncompatibleSchemas, match="was edited by hand"):
            release_schemas(contract)
