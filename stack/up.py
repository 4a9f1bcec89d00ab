"""`make up`: the whole system in one terminal, until Ctrl-C."""

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
from stack.system import LockedError, Planner, System, prepared

DEFAULT_DATA = Path(".wallet")
FAILED = 1
REFUSED = 2


def up(port: int = DEFAULT, data: Path = DEFAULT_DATA, *, planner: Planner | None = None) -> int:
    """Runs the system until SIGINT, SIGTERM or SIGHUP, then stops all of it; a second signal kills what is left.

    Returns:
        The exit code. 0: stopped as asked; 1: a part could not be started; 2: refused before anything was started,
        because a port or the data folder is taken.
    """
    try:
        console = Console(data / "logs")
        with prepared(Ports.derive(port), data, console=console, planner=planner) as system:
            asyncio.run(_serve(system, console, port, data))
    except (PortError, LockedError) as error:
        sys.stderr.write(f"error: {error}\n")
        return REFUSED
    except StartError as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    return 0


async def _serve(system: System, console: Console, port: int, data: Path) -> None:
    supervisor, began = system.supervisor, time.monotonic()
    work = asyncio.create_task(supervisor.start())
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            supervisor.kill()
        else:
            console.say("\nstopping; once more to kill")
        asked.set()
        work.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # started with nohup
        loop.add_signal_handler(number, on_signal)
    try:
        await work
        console.say(welcome(system, port, data, time.monotonic() - began))
        await asked.wait()
    except asyncio.CancelledError:
        if not asked.is_set():
            raise
    finally:
        await supervisor.stop()


def welcome(system: System, port: int, data: Path, seconds: float) -> str:
    """What a person wants to know once everything runs: where it is, and a first thing to try."""
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
The wallet is up after {seconds:.1f} s. Ctrl-C stops it; what it knows stays in {data}.

  GraphiQL   {system.url}/graphql
  REST       {system.url}/docs
  cards      {acquirer or "none"}   (the sandbox acquirer's test cards; it moves no money)
  health     {system.url}/health/ready
  admin      {", ".join(admins) or "none"}   (/health/ready, /metrics)
  below      {databases or "nothing"}

A token for Alice (or USER=bob, operator, admin), who signs in by that:

  make token USER=alice{settings}

Alice sends Bob 10 roubles; send it twice, and the money still moves once:

  curl -sS -X POST {system.url}/accounts/{CUSTOMERS["alice"].account}/transfers \\
    -H "Authorization: Bearer $(make -s token USER=alice{settings})" \\
    -H "Idempotency-Key: {uuid.uuid4()}" \\
    -H "Content-Type: application/json" \\
    -d '{{"recipientId": "{CUSTOMERS["bob"].account}", "amount": "10.00", "currency": "RUB"}}'
"""
