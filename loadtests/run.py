"""One run: customers are made, Locust makes the load, everybody's history is judged."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx
import orjson

from loadtests.console import print_progress
from loadtests.customers import CHECKER, Api
from loadtests.history import log, rows
from loadtests.history.calls import History, deposits
from loadtests.history.judge import judge
from loadtests.history.log import Line, Log
from loadtests.history.readers import judge_feeds, judge_pages
from loadtests.plan import BEGUN, ENDED, Customer, Plan
from loadtests.proofs import prove
from loadtests.statistics import percentiles
from loadtests.target import Target
from loadtests.watch import watched
from stack.process import OrphanReaper
from wallet.accounts import clearing_account_id

REPORTS: Final = Path("loadtests/reports").absolute()  # of the working folder: where it is installed, nobody may write
"""Where runs are kept that people start; no part of the repository."""
FILE: Final = "outcome.json"

_ROOT: Final = Path(__file__).parent.parent
_PATIENCE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.3
_SHOWN: Final = 20


def new_folder(name: str = "") -> Path:
    """An empty one among the reports, named by the time."""
    folder = REPORTS / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}{name and f'-{name}'}"
    folder.mkdir(parents=True)
    return folder


class Verdict(IntEnum):
    """What the checker says; its number is the exit code."""

    SOUND = 0
    BROKEN = 1
    UNPROVEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        began: of the load, on the monotonic clock.
        ended: of the load.
        answered: requests that were answered as they should be, refusals included.
        latency_ms: p50, p95 and p99 of these, from when they were due.
        errors: the others, by their kind.
        dropped: requests that were due and never made.
        calls: what the checker judged: calls and sums.
        verdict: by its name.
        violations: as people read them.
        faults: what was done to the system meanwhile, and when.
    """

    began: float
    ended: float
    answered: int
    latency_ms: Mapping[str, float]
    errors: Mapping[str, int]
    dropped: int
    calls: int
    verdict: str
    violations: Sequence[str] = ()
    faults: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / max(self.ended - self.began, 1e-9)

    def __str__(self) -> str:
        times = ", ".join(f"{name} {value:.0f} ms" for name, value in self.latency_ms.items())
        errors = ", ".join(f"{count} {kind}" for kind, count in self.errors.items()) or "none"
        dropped = f"; dropped: {self.dropped}" if self.dropped else ""
        return (
            f"{self.rate:.1f} answers/s in {self.ended - self.began:.0f} s; {times}; errors: {errors}{dropped}; "
            f"{self.verdict.lower()}: {len(self.violations) or 'no'} violations in {self.calls} calls"
        )


Beside = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
"""What else is done while there is load; returns when it is over, with what it was."""


async def run(target: Target, plan: Plan, accounts: int, folder: Path, beside: Beside | None = None) -> Outcome:
    """Makes the load that is planned, and judges it.

    Args:
        target: the system.
        plan: without customers; they are made here.
        accounts: how many customers there are.
        folder: an empty one of the run's own; keeps all that is known of it.
        beside: begins with the load and ends it, unless that has been for as long as planned before.

    Raises:
        LoadError: Locust ended otherwise than it should.
    """
    history = History()
    with Log(folder) as mine:
        async with Api(target, mine) as api, watched(target, folder, history):
            plan = replace(plan, customers=await api.customers(accounts))
            plan.write(folder)
            print_progress(f"{accounts} customers with accounts; {plan.seconds:g} s of load on {plan.host}")
            began = time.monotonic()
            faults = await _loaded(folder, plan, beside)
            ended = time.monotonic()
            mine.flush()
            judged, violations, verdict = await _judged(target, plan.customers, api, mine, folder, history)
    lines = list(log.read(folder))
    outcome = replace(
        tally(lines, began, ended), calls=judged, verdict=verdict.name, violations=violations, faults=faults
    )
    (folder / FILE).write_bytes(orjson.dumps(asdict(outcome)))
    return outcome


def tally(lines: Sequence[Line], began: float, ended: float) -> Outcome:
    """Figures of a history, without a verdict."""
    asked = [line for line in lines if line.name != CHECKER and not line.feed and not line.dropped]
    answered = [line for line in asked if not line.error]
    first = min((line.began for line in asked), default=began)
    last = max((line.ended for line in asked), default=ended)
    return Outcome(
        began=first,
        ended=last,
        answered=len(answered),
        latency_ms=percentiles([1_000 * (line.ended - line.due) for line in answered]),
        errors=dict(Counter(line.error for line in lines if line.error and line.name != CHECKER).most_common()),
        dropped=sum(line.dropped for line in lines),
        calls=0,
        verdict=Verdict.UNPROVEN.name,
    )


class LoadError(Exception):
    """There was no load, or it was cut off; the message says why."""


async def _loaded(folder: Path, plan: Plan, beside: Beside | None) -> Sequence[Mapping[str, Any]]:
    """Locust, from its start to its end."""
    with (folder / "locust.log").open("ab") as said:
        process = await asyncio.create_subprocess_exec(
            *command(plan, folder),
            cwd=_ROOT,
            env={**os.environ, "LOAD_FOLDER": str(folder), "GRPC_ENABLE_FORK_SUPPORT": "0"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    reaper = OrphanReaper()  # whatever becomes of this process, it leaves nobody behind who loads others for hours
    reaper.register(process.pid, signal.SIGKILL)
    try:
        faults: Sequence[Mapping[str, Any]] = ()
        if beside:
            await _until(lambda: process.returncode is not None or (folder / BEGUN).exists())
            faults = await beside()
            with suppress(ProcessLookupError):  # it has just ended by itself
                process.terminate()
        code = await asyncio.wait_for(process.wait(), plan.seconds + _PATIENCE_SECONDS)
        if code == 0:
            await _until(lambda: len(list(folder.glob(f"{ENDED}*"))) >= plan.processes)
    except TimeoutError:
        raise LoadError(f"Locust did not end, or a process of its was lost: see {folder}") from None
    finally:
        with suppress(ProcessLookupError):  # its own session: its workers with it
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        reaper.release(process.pid)
        reaper.close()
    if code:
        last = (folder / "locust.log").read_text(errors="replace")[-2_000:]
        raise LoadError(f"Locust ended with {code}:\n{last}")
    return faults


async def _until(is_so: Callable[[], bool]) -> None:
    """Returns when something is so that another process does.

    Raises:
        TimeoutError: it is not, for too long.
    """
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110  another process
            await asyncio.sleep(_LOOK_SECONDS)


def command(plan: Plan, folder: Path, *, web_port: int = 0) -> list[str]:
    """Locust's command line. With a port it shows its page there, until it is ended; without one it ends by itself."""
    seconds, users = f"{max(1, round(plan.seconds))}s", str(plan.users)
    common = [
        "--host",
        plan.host,
        "--users",
        users,
        "--spawn-rate",
        users,
        "--run-time",
        seconds,
        "--stop-timeout",
        "12",
    ]
    reports = ["--html", str(folder / "locust.html"), "--csv", str(folder / "locust")]
    web = ["--web-host", "127.0.0.1", "--web-port", str(web_port), "--autostart"] if web_port else ["--headless"]
    several = ["--processes", str(plan.processes)] if plan.processes > 1 else []
    file = str(_ROOT / "loadtests" / "locustfile.py")
    return [sys.executable, "-m", "locust", "-f", file, *web, *common, *reports, *several, "--exit-code-on-error", "0"]


async def _judged(
    target: Target, customers: Sequence[Customer], api: Api, mine: Log, folder: Path, history: History
) -> tuple[int, list[str], Verdict]:
    """How many calls were judged, what is wrong, and the verdict."""
    if not target.ledger:
        print_progress(
            "the ledger cannot be looked at from here, so nothing is proven: name its database with --ledger"
        )
        return 0, [], Verdict.UNPROVEN
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await api.resolve(log.calls(log.read(folder)), customers)
    except TimeoutError:
        print_progress("not every outcome became known")
    mine.flush()
    accounts = [UUID(customer.account) for customer in customers]
    connection = await asyncpg.connect(target.ledger)
    try:
        principals = [customer.principal for customer in customers]
        ledger = await rows.read(connection, accounts, principals, [clearing_account_id("RUB")])
    finally:
        await connection.close()
    lines = list(log.read(folder))
    calls = deposits(log.calls(lines))
    violations = judge(ledger, calls, history.snapshots)
    violations += judge_feeds(ledger, (line.feed for line in lines if line.feed))
    pages = await _pages(api, customers, ledger)
    violations += judge_pages(ledger, pages)
    proofs = await prove(target)
    told = [*map(str, violations), *(f"{name}: {word}" for name, word in proofs.items() if word.startswith("broken"))]
    for each in told[:_SHOWN]:
        print_progress(each)
    is_proven = len(pages) == len(customers) and "unavailable" not in proofs.values()
    verdict = Verdict.SOUND if is_proven else Verdict.UNPROVEN
    return len(calls) + len(history.snapshots), told, Verdict.BROKEN if told else verdict


async def _pages(api: Api, customers: Sequence[Customer], ledger: rows.Ledger) -> dict[UUID, list[rows.Entry]]:
    """Every customer's whole history: as soon as it is as long as the ledger's, or as it is when patience ends; those
    that cannot be read even then are left out.
    """
    versions = {account.id: account.version for account in ledger.accounts}
    deadline = time.monotonic() + _PATIENCE_SECONDS

    async def pages(customer: Customer) -> tuple[UUID, list[rows.Entry] | None]:
        id_, shown = UUID(customer.account), None
        while (shown is None or len(shown) < versions[id_]) and time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                shown = [rows.shown(id_, operation) for operation in await api.operations(customer)]
            await asyncio.sleep(_LOOK_SECONDS)
        return id_, shown

    read = await asyncio.gather(*map(pages, customers))
    return {id_: shown for id_, shown in read if shown is not None}
