"""Java programs and packages that tests use."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from stack.engines.jars import JarsUnavailable, fetch_jars
from tests.tools import skip_without_tool

FAST_START: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Options of the JVM for programs that run for seconds."""
_POMS: Final = Path(__file__).parent / "contract" / "java"


def find_tool(name: str) -> str:
    """Return the path of a program; skip the test without it."""
    return shutil.which(name) or skip_without_tool(f"there is no {name}")


def find_jars(project: str) -> Path:
    """Return the folder with the jars of a project in `tests/contract/java`; skip the test without them."""
    try:
        return fetch_jars(_POMS / f"{project}.pom.xml")
    except JarsUnavailable as error:
        skip_without_tool(f"there are no jars: {error}")


def run(*arguments: str | Path) -> str:
    """Run `java`, and return its output. A source file as the program needs the compiler of a JDK."""
    find_tool("javac")
    done = subprocess.run(
        (find_tool("java"), *FAST_START, *arguments), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
