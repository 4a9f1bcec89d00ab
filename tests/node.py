"""Judges of the contracts that are written for Node: the scripts in `tests/contract/node`."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.tools import lacking

_FOLDER: Final = Path(__file__).parent / "contract" / "node"


def command(script: str, *arguments: str, by: str) -> list[str]:
    """What runs a script; without node or the package that it stands on, the test ends here.

    Args:
        script: its file's name.
        arguments: of its command line.
        by: the package that judges.
    """
    node = shutil.which("node")
    if node is None:
        lacking("there is no node")
    if not (_FOLDER / "node_modules" / by).is_dir():
        lacking(f"there is no {by}")
    return [node, str(_FOLDER / script), *arguments]


def judged(script: str, *arguments: str, by: str, given: str = "") -> Any:
    """What a script says, in JSON, of these arguments and of what it is given to read: its standard input."""
    whole = command(script, *arguments, by=by)
    done = subprocess.run(whole, input=given, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return json.loads(done.stdout)
