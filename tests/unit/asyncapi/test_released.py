import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from asyncapi.released import Refused, release
from stack.process import ROOT


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    """A copy of the project's own events, and of what it has promised."""
    shutil.copytree(ROOT / "asyncapi" / "schemas", tmp_path / "schemas")
    shutil.copy(ROOT / "asyncapi" / "released.json", tmp_path)
    return tmp_path


def edit(file: Path, *path: str, value: Any) -> None:
    document = part = json.loads(file.read_text())
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    file.write_text(json.dumps(document))


class TestRelease:
    def test_changes_nothing_when_nothing_has_changed(self, contract: Path) -> None:
        before = (contract / "released.json").read_text()
        release(contract)
        assert (contract / "released.json").read_text() == before

    def test_what_was_added_is_promised_from_then_on(self, contract: Path) -> None:
        event = contract / "schemas" / "transfer_event.json"
        before = event.read_text()
        edit(event, "properties", "note", value={"type": "string"})
        release(contract)
        event.write_text(before)
        with pytest.raises(Refused, match=r"asyncapi/schemas/transfer_event\.json: #/properties/note: is gone"):
            release(contract)

    def test_refuses_a_break_and_says_where_and_what_to_do(self, contract: Path) -> None:
        before = (contract / "released.json").read_text()
        edit(contract / "schemas" / "topup_event.json", "$defs", "Posting", "properties", "version", "minimum", value=0)
        with pytest.raises(Refused) as refused:
            release(contract)
        first, *advice = str(refused.value).splitlines()
        assert first == "asyncapi/schemas/topup_event.json: #/$defs/Posting/properties/version/minimum: is 0, was 1"
        assert "only optional properties may be added" in advice[0]
        assert (contract / "released.json").read_text() == before

    def test_takes_a_new_event(self, contract: Path) -> None:
        (contract / "schemas" / "refund_event.json").write_text('{"title": "RefundEvent", "type": "object"}')
        release(contract)
        (contract / "schemas" / "refund_event.json").unlink()
        with pytest.raises(Refused, match=r"asyncapi/schemas/refund_event\.json: is gone"):
            release(contract)

    def test_a_break_in_both_places_is_seen(self, contract: Path) -> None:
        """As an editor makes it that renames a word in every file there is."""
        for file in (contract / "schemas" / "transfer_event.json", contract / "released.json"):
            file.write_text(file.read_text().replace("balanceAfter", "balance"))
        with pytest.raises(Refused, match="is not as `make gen` wrote it"):
            release(contract)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": 1, "schemas": 2}', "<<<<<<< HEAD"])
    def test_a_file_that_says_nothing_is_refused(self, contract: Path, text: str) -> None:
        (contract / "released.json").write_text(text)
        with pytest.raises(Refused, match="is not as `make gen` wrote it"):
            release(contract)
