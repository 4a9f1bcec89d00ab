"""`make up`: run the whole system in one terminal until Ctrl-C."""

import asyncio
import shlex
import signal
import sys
import time
import uuid
from pathlib import Path

from provisioning.seed import CUSTOMERS
from stack.console import Console
from stack.ports import DEFAULT, HOST, PortError, Ports
from stack.process import StartError
from stack.system import LockedError, Planner, System, prepare_system

DEFAULT_DATA = Path(".wallet")
FAILED = 1
REFUSED = 2


def up(port: int = DEFAULT, data: Path = DEFAULT_DATA, *, planner: Planner | None = None) -> int:
    """Run the system until SIGINT, SIGTERM or SIGHUP, then stop it; a second signal kills all processes.

    Returns:
        Exit code: 0 stopped by a signal, 1 a process could not be started, 2 a port or the data folder is in use.
    """
    try:
        console = Console(data / "logs")
        with prepare_system(Ports.derive(port), data, console=console, planner=planner) as system:
            asyncio.run(_serve(system, console, port, data))
    except (PortError, LockedError) as error:
        sys.stderr.write(f"error: {error}\n")
        return REFUSED
    except StartError as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    return 0


async def _serve(system: System, console: Console, port: int, data: Path) -> None:
    supervisor, started = system.supervisor, time.monotonic()
    work = asyncio.create_task(supervisor.start())
    stop_requested = asyncio.Event()

    def on_signal() -> None:
        if stop_requested.is_set():
            supervisor.kill()
        else:
            console.show("\nstopping; press Ctrl-C again to kill")
        stop_requested.set()
        work.cancel()

    loop = asyncio.get_running_loop()
    stop_signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in stop_signals:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # started with nohup: SIGHUP stays ignored
        loop.add_signal_handler(number, on_signal)
    try:
        await work
        console.show(welcome_text(system, port, data, time.monotonic() - started))
        await stop_requested.wait()
    except asyncio.CancelledError:
        if not stop_requested.is_set():
            raise
    finally:
        await supervisor.stop()
        signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)  # a late Ctrl-C must not change the exit code


def welcome_text(system: System, port: int, data: Path, seconds: float) -> str:
    """Return the message shown when everything runs: addresses, and a first request to try."""
    settings = "".join(
        f" {name}={shlex.quote(str(value))}"
        for name, value, default in (("PORT", port, DEFAULT), ("DATA", data, DEFAULT_DATA))
        if value != default
    )
    children = system.supervisor.children
    admins = [f"{n} {c.process.urls['admin']}" for n, c in children.items() if "admin" in c.process.urls]
    databases = ", ".join(
        f"{name} {HOST}:{p}"
        for name in ("postgres", "kafka", "clickhouse")
        if name in children
        for p in children[name].process.ports.values()
    )
    acquirer = next((c.process.urls["test cards"] for c in children.values() if "test cards" in c.process.urls), None)
    return f"""
The wallet is up after {seconds:.1f} s. Ctrl-C stops it; its data stay in {data}.

  GraphiQL   {system.url}/graphql
  REST       {system.url}/docs
  cards      {acquirer or "none"}   (test cards of the sandbox acquirer, which moves no money)
  health     {system.url}/health/ready
  admin      {", ".join(admins) or "none"}   (/health/ready, /metrics)
  databases  {databases or "none"}

Log in as Alice (or USER=bob, operator, admin) and print the access token:

  make token USER=alice{settings}

Alice sends Bob 10 roubles. Repeat the request with the same key: the money moves once.

  curl -sS -X POST {system.url}/accounts/{CUSTOMERS["alice"].account}/transfers \\
    -H "Authorization: Bearer $(make -s token USER=alice{settings})" \\
    -H "Idempotency-Key: {uuid.uuid4()}" \\
    -H "Content-Type: application/json" \\
    -d '{{"recipientId": "{CUSTOMERS["bob"].account}", "amount": "10.00", "currency": "RUB"}}'
"""
