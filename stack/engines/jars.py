"""Java packages that Maven downloads, for tests and benchmarks."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_FETCH_SECONDS: Final = 100


class JarsUnavailable(Exception):
    """Java packages cannot be installed on this machine; the message says why."""


def fetch_jars(pom: Path) -> Path:
    """Return the folder with the jars of a project. Maven downloads them once per user.

    Args:
        pom: project file `NAME.pom.xml` that lists the packages as dependencies.

    Raises:
        JarsUnavailable: Java or Maven is missing, or the download failed.
    """
    _require("java")
    name = pom.name.removesuffix(".pom.xml")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wallet-tests"
    jars = caches / f"{name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if jars.exists():
        return jars
    _require("mvn")
    caches.mkdir(parents=True, exist_ok=True)
    with (caches / f"{name}.lock").open("w") as lock, tempfile.TemporaryDirectory(dir=caches) as unfinished:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of the same run may be downloading the jars
        if not jars.exists():
            _run_maven(name, "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={unfinished}/jars")
            (Path(unfinished) / "jars").rename(jars)
    return jars


def _require(tool: str) -> None:
    if shutil.which(tool) is None:
        raise JarsUnavailable(f"`{tool}` is not on the path")


def _run_maven(name: str, *arguments: str) -> None:
    try:
        subprocess.run(  # noqa: S603  fixed arguments
            ["mvn", "-q", "-B", "-DincludeScope=runtime", *arguments],  # noqa: S607  from the PATH, as for a person
            check=True,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise JarsUnavailable(f"Maven did not download the jars of {name} in {_FETCH_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        raise JarsUnavailable(f"Maven did not download the jars of {name}:\n{error.stdout[:2_000]}") from None
