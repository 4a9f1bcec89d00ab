"""Commands about a local system: stop it, show its log, open it in the browser, delete its data."""

import contextlib
import os
import shutil
import signal
import sys
import time
import webbrowser
from pathlib import Path
from typing import NoReturn

from stack.engines.cluster import remove_cluster
from stack.ports import HOST
from stack.running import RunningSystem, is_locked
from stack.system import lock_data_folder

_POLL_SECONDS = 0.1
_STOP_TIMEOUT_SECONDS = 60.0
_NEWEST_LINES = 200  # lines of each log file that are shown at once


class CommandError(Exception):
    """A command cannot do what it should. The message says why."""


def stop(system: RunningSystem) -> None:
    """Stop a running system, as Ctrl-C does in its terminal, and wait until it has ended.

    Raises:
        CommandError: it still runs after a minute.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(system.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_SECONDS
    while is_locked(system.data):
        if time.monotonic() > deadline:
            raise CommandError(f"the wallet of {system.data} (process {system.pid}) still runs: see its terminal")
        time.sleep(_POLL_SECONDS)
    sys.stdout.write(f"stopped the wallet of {system.data}; its data stay there\n")


def show_logs(system: RunningSystem, service: str | None) -> NoReturn:
    """Print the newest log lines of all processes, or of one, and then new lines until Ctrl-C.

    Raises:
        CommandError: there is no process with this name.
    """
    files = {file.stem: str(file) for file in sorted((system.data / "logs").glob("*.log"))}
    if service is not None and service not in files:
        raise CommandError(f"there is no process {service!r}: choose one of {', '.join(files)}")
    shown = files.values() if service is None else [files[service]]
    os.execvp("tail", ["tail", "-n", str(_NEWEST_LINES), "-F", *shown])  # noqa: S606,S607  no shell


def open_browser(system: RunningSystem) -> None:
    """Open GraphiQL of a running system in the browser, and print its address."""
    url = f"http://{HOST}:{system.port}/graphql"
    sys.stdout.write(f"{url}\n")
    webbrowser.open(url)


def delete_data(data: Path) -> None:
    """Delete a data folder and its PostgreSQL cluster.

    Raises:
        CommandError: the folder is not one of a wallet.
        LockedError: a system uses the folder.
    """
    if not data.exists():
        sys.stdout.write(f"there is no {data}: nothing was deleted\n")
        return
    if not (data / "lock").exists():
        raise CommandError(f"{data} is not the data folder of a wallet: nothing was deleted")
    with lock_data_folder(data.absolute()):
        remove_cluster(data.absolute())
        shutil.rmtree(data)
    sys.stdout.write(f"deleted {data}\n")
