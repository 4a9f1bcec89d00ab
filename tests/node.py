"""Node scripts in `tests/contract/node` that check the contracts with public tools."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.tools import skip_without_tool

_FOLDER: Final = Path(__file__).parent / "contract" / "node"

NODE_MODULES: Final = _FOLDER / "node_modules"
"""Folder with the installed npm packages."""


def script_command(script: str, *arguments: str, package: str) -> list[str]:
    """Return the command of a script; skip the test without node or the script's package.

    Args:
        script: file name of the script.
        arguments: arguments of the script.
        package: npm package that the script uses.
    """
    node = shutil.which("node")
    if node is None:
        skip_without_tool("there is no node")
    if not (NODE_MODULES / package).is_dir():
        skip_without_tool(f"there is no npm package {package}")
    return [node, str(_FOLDER / script), *arguments]


def run_script(script: str, *arguments: str, package: str, stdin: str = "") -> Any:
    """Run a script with arguments and standard input, and return its JSON output."""
    command = script_command(script, *arguments, package=package)
    done = subprocess.run(command, input=stdin, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return json.loads(done.stdout)
