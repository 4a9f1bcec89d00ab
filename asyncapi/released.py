"""`python -m asyncapi.released`: refuses what breaks readers of the events, and writes down what was added.

`released.json` has the schemas as they are promised to readers. It stands beside them in every commit, so a clean clone
is enough to compare the two, however shallow; and since both say the same except while somebody is at work, nothing
that was ever committed can be taken back unnoticed. Its digest tells it from a file that was edited.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Final

from asyncapi.compatibility import Schema, breaking_changes

_BROKEN: Final = """\
Somebody may already read these events: only optional properties may be added. Take the change back, or publish a new
event beside the old one (CONTRIBUTING.md, "Add an event"). What `make gen` has written down since your last commit
is forgotten by: git checkout -- asyncapi/released.json"""

_EDITED: Final = """\
asyncapi/released.json is not as `make gen` wrote it. Restore it: git checkout -- asyncapi/released.json. After a merge,
take the file of the branch that you merge into. Then `make gen`."""


class Refused(Exception):
    """The schemas break a promise. The message says which, and what to do."""


def release(folder: Path) -> None:
    """Compares `schemas/` with `released.json` in the same folder, and makes them the same.

    Raises:
        Refused: something was changed or taken away. The file is as it was.
    """
    file = folder / "released.json"
    schemas: dict[str, Schema] = {
        each.name: json.loads(each.read_text()) for each in (folder / "schemas").glob("*.json")
    }
    problems = []
    for name, promised in _read(file).items():
        if name in schemas:
            problems += [f"asyncapi/schemas/{name}: {each}" for each in breaking_changes(promised, schemas[name])]
        else:
            problems.append(f"asyncapi/schemas/{name}: is gone")
    if problems:
        raise Refused("\n".join([*problems, _BROKEN]))
    document = {"digest": _digest(schemas), "schemas": schemas}
    file.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _read(file: Path) -> dict[str, Schema]:
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text())
        schemas: dict[str, Schema] = document["schemas"]
        intact = document["digest"] == _digest(schemas)
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise Refused(_EDITED)
    return schemas


def _digest(schemas: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(schemas, sort_keys=True).encode()).hexdigest()


def main() -> None:
    """Exits with 1 and says why, when the schemas break a promise."""
    try:
        release(Path(__file__).parent)
    except Refused as refused:
        sys.exit(str(refused))


if __name__ == "__main__":
    main()
