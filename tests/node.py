"""Judges of the contracts that are written for Node: the scripts in `tests/contract/node`."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.tools import lacking

_FOLDER: Final = Path(__file__).parent / "contract" / "node"


def judged(script: str, *arguments: str, by: str, given: str = "") -> Any:
    """What a script says, in JSON, of these arguments and of what it is given to read.

    Args:
        script: its file's name.
        arguments: of its command line.
        by: the package that judges.
        given: its standard input.
    """
    node = shutil.which("node")
    if node is None:
        lacking("there is no node")
    if not (_FOLDER / "node_modules" / by).is_dir():
        lacking(f"there is no {by}")
    command = [node, str(_FOLDER / script), *arguments]
    done = subprocess.run(command, input=given, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return json.loads(done.stdout)
