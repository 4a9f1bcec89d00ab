"""Systems that run on this machine: `up` registers its data folder, and other commands find it."""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.runtime.files import write_private_file


class NotFoundError(Exception):
    """No system fits what the user has named, or several do. The message says what to do."""


@dataclass(frozen=True, slots=True)
class RunningSystem:
    """A system that runs, or that starts or stops.

    Attributes:
        data: its data folder.
        port: port of its gateway.
        pid: its supervisor.
    """

    data: Path
    port: int
    pid: int


@contextmanager
def registered(data: Path, port: int) -> Iterator[None]:
    """Let `find_system` find the system of a data folder during the block. The caller holds the folder's lock."""
    folder = _folder()
    entry = folder / hashlib.sha256(os.fsencode(data.absolute())).hexdigest()[:16]
    with contextlib.suppress(OSError):  # such as a full disk: the system runs, and DATA and PORT have to be named
        folder.mkdir(mode=0o700, exist_ok=True)
        if _is_private(folder):
            write_private_file(entry, json.dumps({"data": str(data.absolute()), "port": port, "pid": os.getpid()}))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            entry.unlink(missing_ok=True)


def list_systems() -> list[RunningSystem]:
    """Return the registered systems of this user that run."""
    systems: list[RunningSystem] = []
    folder = _folder()
    if not _is_private(folder):
        return systems
    for entry in sorted(folder.glob("*")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            values = json.loads(entry.read_text())
            system = RunningSystem(Path(values["data"]), int(values["port"]), int(values["pid"]))
            if is_locked(system.data) and system.pid > 0:
                systems.append(system)
            else:  # it was killed
                entry.unlink(missing_ok=True)
    return systems


def find_system(data: Path | None = None, port: int | None = None) -> RunningSystem:
    """Return the one running system with this data folder and port; None means any.

    Raises:
        NotFoundError: there is none, or there are several.
    """
    running = list_systems()
    found = [
        each
        for each in running
        if (data is None or each.data == data.absolute()) and (port is None or each.port == port)
    ]
    if len(found) == 1:
        return found[0]
    if (
        data is not None
        and port is not None
        and is_locked(data)
        and data.absolute() not in {each.data for each in running}
    ):
        return RunningSystem(data.absolute(), port, _holder(data))  # it could not be registered
    if found:
        raise NotFoundError(f"several wallets run, so name one:\n{_describe(found)}")
    if not running:
        raise NotFoundError("no wallet runs on this machine: start one with `make up`")
    named = " and ".join(text for text, value in ((f"DATA={data}", data), (f"PORT={port}", port)) if value is not None)
    raise NotFoundError(f"no running wallet has {named}; these run:\n{_describe(running)}")


def is_locked(data: Path) -> bool:
    """Return whether a system holds the lock of a data folder."""
    try:
        descriptor = os.open(data / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _holder(data: Path) -> int:
    """Return the process that has locked a data folder.

    Raises:
        NotFoundError: the lock does not name a process. A signal to process 0 would reach the caller's own group.
    """
    text = (data / "lock").read_text().strip()
    if not text.isdecimal() or int(text) == 0:
        raise NotFoundError(f"the system of DATA={data} is just starting or stopping: try again")
    return int(text)


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"wallet-running-{os.getuid()}"


def _is_private(folder: Path) -> bool:
    """Return whether only this user can write into a folder. Anyone may create a folder of this name in /tmp before."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _describe(systems: Sequence[RunningSystem]) -> str:
    return "\n".join(f"  PORT={each.port} DATA={each.data}" for each in systems)
