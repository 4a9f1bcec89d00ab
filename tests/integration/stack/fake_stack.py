"""`make up` with fake services: `fake_stack.py PORT DATA [stubborn]`. The other ports are derived from PORT."""

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from stack import probes
from stack.ports import Ports
from stack.process import Command, Process
from stack.up import up

SERVICE = Path(__file__).with_name("fake_service.py")


def python(*arguments: str, **environment: str) -> Callable[[], Awaitable[Command]]:
    """Return a factory of a command that runs Python in isolated mode, which starts faster than normal mode."""

    async def command() -> Command:
        return Command((sys.executable, "-IS", *arguments), environment)

    return command


def service(
    name: str, port: int, *more: str, depends_on: Sequence[str] = (), restart_with: Sequence[str] = ()
) -> Process:
    """Return the definition of a fake service's process."""
    return Process(
        name=name,
        command=python(str(SERVICE), str(port), *more),
        ready=probes.http(f"http://127.0.0.1:{port}/health/ready"),
        depends_on=depends_on,
        restart_with=restart_with,
        ports={"HTTP": port},
        urls={"admin": f"http://127.0.0.1:{port}"},
    )


def plan(ports: Ports, data: Path) -> tuple[Process, ...]:
    """Return a plan of three services; with the argument `stubborn` analytics ignores SIGTERM."""
    return (
        service("bank", ports.bank_admin),
        service("analytics", ports.analytics_admin, *sys.argv[3:], depends_on=("bank",)),
        service("gateway", ports.gateway, depends_on=("bank",)),
    )


def is_running(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


if __name__ == "__main__":
    sys.exit(up(int(sys.argv[1]), Path(sys.argv[2]), planner=plan))
