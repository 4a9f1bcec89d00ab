"""`python -m asyncapi.released`: check the event schemas against the released ones, and record additions.

`released.json` is a copy of the released schemas, in the same commit as `schemas/`. The check compares `schemas/` with
the copy and needs no other commit, so it works in a shallow clone. Each run adds new fields to the copy, so a field
that was committed cannot be removed unnoticed. A digest in the file detects manual edits.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Final

from asyncapi.compatibility import Schema, breaking_changes

_INCOMPATIBLE: Final = """\
Consumers may already use these events: only optional properties may be added. Revert the change, or publish a new event
beside the old one (CONTRIBUTING.md, "Add an event"). To discard additions that `make gen` has recorded since your last
commit: git checkout -- asyncapi/released.json"""

_EDITED: Final = """\
asyncapi/released.json was edited by hand. Restore it: git checkout -- asyncapi/released.json. After a merge, take the
file of the target branch. Then run `make gen`."""


class IncompatibleSchemas(Exception):
    """The schemas are incompatible with the released ones. The message names the incompatible places and the remedy."""


def release_schemas(folder: Path) -> None:
    """Check `schemas/` against `released.json` in the same folder, then write the current schemas to `released.json`.

    Args:
        folder: folder of the event contract.

    Raises:
        IncompatibleSchemas: a schema has an incompatible change or is missing, or `released.json` was edited. The file
            is unchanged.
    """
    file = folder / "released.json"
    schemas: dict[str, Schema] = {
        path.name: json.loads(path.read_text()) for path in (folder / "schemas").glob("*.json")
    }
    problems = []
    for name, released in _read_released(file).items():
        if name in schemas:
            changes = breaking_changes(released, schemas[name])
            problems += [f"asyncapi/schemas/{name}: {change}" for change in changes]
        else:
            problems.append(f"asyncapi/schemas/{name}: removed")
    if problems:
        raise IncompatibleSchemas("\n".join([*problems, _INCOMPATIBLE]))
    document = {"digest": _digest(schemas), "schemas": schemas}
    file.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _read_released(file: Path) -> dict[str, Schema]:
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text())
        schemas: dict[str, Schema] = document["schemas"]
        is_intact = document["digest"] == _digest(schemas)
    except (ValueError, KeyError, TypeError):
        is_intact = False
    if not is_intact:
        raise IncompatibleSchemas(_EDITED)
    return schemas


def _digest(schemas: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(schemas, sort_keys=True).encode()).hexdigest()


def main() -> None:
    """Release the schemas. Exit with 1 and the reason if they are incompatible."""
    try:
        release_schemas(Path(__file__).parent)
    except IncompatibleSchemas as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
