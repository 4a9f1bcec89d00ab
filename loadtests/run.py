"""One run: create the customers, generate load with Locust, and check all recorded responses."""

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
from itertools import count
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx
import orjson

from loadtests.console import print_progress, show_elapsed
from loadtests.customers import CHECKER, CustomerApi, SetUpError, describe_error
from loadtests.history import rows
from loadtests.history.calls import History, deposits_of_top_ups
from loadtests.history.checker import check_history, check_top_up_marks
from loadtests.history.reader_checks import check_operations, check_subscriptions
from loadtests.history.storage import HistoryWriter, RequestRecord, calls_from_records, read_records
from loadtests.integrity import check_integrity
from loadtests.interrupts import Interrupts
from loadtests.plan import FINISHED_PREFIX, STARTED, Customer, Plan
from loadtests.sampling import DATABASE_ERRORS, record_samples
from loadtests.statistics import percentiles
from loadtests.target import Target
from stack.process import OrphanReaper
from wallet.accounts import clearing_account_id

REPORTS: Final = Path("loadtests/reports").absolute()  # in the working directory: the installation may be read-only
"""Folder of the reports of manual runs; not part of the repository."""
FILE: Final = "outcome.json"

_ROOT: Final = Path(__file__).parent.parent
_TIMEOUT_SECONDS: Final = 60.0
_CONNECT_TIMEOUT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.3
_MAX_PRINTED: Final = 20


def create_report_folder(name: str = "") -> Path:
    """Create an empty folder for the results of a run, named after the time."""
    stem = f"{time.strftime('%Y-%m-%dT%H-%M-%S')}{name and f'-{name}'}"
    for number in count(1):  # two runs may start in the same second
        folder = REPORTS / (stem if number == 1 else f"{stem}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


class Verdict(IntEnum):
    """Verdict of the history checker. The number is the exit code."""

    SOUND = 0
    BROKEN = 1
    UNPROVEN = 2


COULD_NOT_RUN: Final = 3
"""Exit code of a run without load: the system could not be started, reached or prepared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a run.

    Attributes:
        began: start of the first request, on the monotonic clock.
        ended: end of the last request, on the monotonic clock.
        answered: number of requests with a correct response, including refusals by the ledger.
        latency_ms: p50, p95 and p99 of the latency of these requests, counted from their due times.
        errors: number of failed requests by error.
        dropped: number of requests that were due and never sent.
        calls: number of calls and balance snapshots that the history checker verified.
        verdict: name of the `Verdict`.
        violations: violated invariants with their evidence, as text.
        faults: injected faults with their times.
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
        """Return the correct responses per second."""
        return self.answered / max(self.ended - self.began, 1e-9)

    def __str__(self) -> str:
        times = ", ".join(f"{name} {value:.0f} ms" for name, value in self.latency_ms.items())
        errors = ", ".join(f"{count} {kind}" for kind, count in self.errors.items()) or "none"
        dropped = f"; dropped: {self.dropped}" if self.dropped else ""
        return (
            f"{self.rate:.1f} responses/s in {self.ended - self.began:.0f} s; {times}; errors: {errors}{dropped}; "
            f"{self.verdict.lower()}: {len(self.violations) or 'no'} violations in {self.calls} calls"
        )


ConcurrentTask = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
"""Task that runs during the load, such as fault injection. Returns the injected faults, with their times."""


async def run_load(
    target: Target,
    plan: Plan,
    accounts: int,
    folder: Path,
    during_load: ConcurrentTask | None = None,
    interrupts: Interrupts | None = None,
) -> Outcome:
    """Generate the planned load and check the responses.

    Args:
        target: system under load.
        plan: plan without customers; they are created here.
        accounts: number of customers.
        folder: empty folder for all results of the run.
        during_load: runs during the load. The load ends when this task returns, or after the planned duration.
        interrupts: signals that end the load early.

    Raises:
        SetUpError: the system or its ledger does not respond as expected; there was no load.
        LoadError: Locust failed.
    """
    await check_ledger(target)
    history = History()
    with HistoryWriter(folder) as writer:
        async with CustomerApi(target, writer) as api, record_samples(target, folder, history):
            plan = replace(plan, customers=await api.create_customers(accounts))
            plan.write(folder)
            print_progress(
                f"{accounts} customers with accounts; {plan.seconds:g} s of load on {plan.host}; seed {plan.seed}"
            )
            began = time.monotonic()
            faults = await _run_locust(folder, plan, during_load, interrupts or Interrupts())
            ended = time.monotonic()
            writer.flush()
            checked = await _check(target, plan.customers, api, writer, folder, history)
    return _write_outcome(folder, replace(summarize(list(read_records(folder)), began, ended), faults=faults), checked)


async def check_run(target: Target, folder: Path) -> Outcome:
    """Check the recorded responses of a run that has ended.

    Args:
        target: system under load.
        folder: folder of the run, with its plan and the records of all processes.

    Raises:
        SetUpError: the ledger cannot be read.
    """
    await check_ledger(target)
    plan = Plan.read(folder)
    with HistoryWriter(folder) as writer:
        async with CustomerApi(target, writer) as api:
            checked = await _check(target, plan.customers, api, writer, folder, History())
    return _write_outcome(folder, summarize(list(read_records(folder)), 0.0, 0.0), checked)


def _write_outcome(folder: Path, summary: Outcome, checked: tuple[int, list[str], Verdict]) -> Outcome:
    calls, violations, verdict = checked
    outcome = replace(summary, calls=calls, verdict=verdict.name, violations=violations)
    (folder / FILE).write_bytes(orjson.dumps(asdict(outcome)))
    return outcome


def summarize(records: Sequence[RequestRecord], began: float, ended: float) -> Outcome:
    """Return the result of a run, without the checks: the verdict is UNPROVEN.

    Args:
        records: records of all requests.
        began: start of the run, used if there are no requests.
        ended: end of the run, used if there are no requests.
    """
    requests = [each for each in records if each.name != CHECKER and not each.subscription and not each.dropped]
    answered = [each for each in requests if not each.error]
    first = min((each.began for each in requests), default=began)
    last = max((each.ended for each in requests), default=ended)
    return Outcome(
        began=first,
        ended=last,
        answered=len(answered),
        latency_ms=percentiles([1_000 * (each.ended - each.due) for each in answered]),
        errors=dict(Counter(each.error for each in records if each.error and each.name != CHECKER).most_common()),
        dropped=sum(each.dropped for each in records),
        calls=0,
        verdict=Verdict.UNPROVEN.name,
    )


async def check_ledger(target: Target) -> None:
    """Check that the ledger of the target, if there is one, can be read.

    Raises:
        SetUpError: the ledger cannot be read. The message does not contain the password of the URL.
    """
    if not target.ledger:
        return
    try:
        connection = await asyncpg.connect(target.ledger, timeout=_CONNECT_TIMEOUT_SECONDS)
        try:
            is_ledger = await connection.fetchval("SELECT to_regclass('accounts') IS NOT NULL")
        finally:
            await connection.close()
    except (*DATABASE_ERRORS, ValueError) as error:
        raise SetUpError(
            f"the ledger's database cannot be read ({describe_error(error)}): "
            + (
                f"is {target.data} the data folder of the system at {target.host}? Name the right one with --data"
                if target.data
                else "correct --ledger, or leave it out for a run without a verdict"
            )
        ) from None
    if not is_ledger:
        raise SetUpError("the database of --ledger has no table of accounts: name the bank's database")


class LoadError(Exception):
    """Locust could not start, or stopped before the end. The message says why."""


async def _run_locust(
    folder: Path, plan: Plan, during_load: ConcurrentTask | None, interrupts: Interrupts
) -> Sequence[Mapping[str, Any]]:
    """Run Locust from start to end, and return the injected faults."""
    with (folder / "locust.log").open("ab") as log_file:
        process = await asyncio.create_subprocess_exec(
            *locust_command(plan, folder),
            cwd=_ROOT,
            env={**os.environ, "LOAD_FOLDER": str(folder), "GRPC_ENABLE_FORK_SUPPORT": "0"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )
    reaper = OrphanReaper()  # kills Locust if this process is killed; otherwise the load could go on for hours
    reaper.register(process.pid, signal.SIGKILL)
    try:
        faults: Sequence[Mapping[str, Any]] = ()
        if during_load:
            await _wait_until(lambda: process.returncode is not None or (folder / STARTED).exists())
            faults = await during_load()
            _end_locust(process)
        must_end = asyncio.Event()
        with interrupts.ending_load(must_end.set):
            code = await _wait_for_end(process, plan.seconds, must_end, (folder / STARTED).exists)
        if code == 0:
            await _wait_until(lambda: len(list(folder.glob(f"{FINISHED_PREFIX}*"))) >= plan.processes)
    except TimeoutError:
        raise LoadError(f"Locust did not end, or one of its processes died: see {folder}/locust.log") from None
    finally:
        with suppress(ProcessLookupError):  # Locust leads its own session, so its workers end too
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        reaper.release(process.pid)
        reaper.close()
    if code:
        last = (folder / "locust.log").read_text(errors="replace")[-2_000:]
        raise LoadError(f"Locust ended with exit code {code}:\n{last}")
    return faults


def _end_locust(process: asyncio.subprocess.Process) -> None:
    """Let Locust end the load and write its reports. It may have ended already."""
    with suppress(ProcessLookupError):
        process.terminate()


async def _wait_for_end(
    process: asyncio.subprocess.Process, seconds: float, must_end: asyncio.Event, has_started: Callable[[], bool]
) -> int:
    """Wait until Locust ends, show the elapsed time, and return the exit code.

    Args:
        process: Locust.
        seconds: planned duration.
        must_end: ends the load early, as soon as it has started: before that, Locust does not handle the signal.
        has_started: returns whether the load has started.

    Raises:
        TimeoutError: Locust still runs a minute after the planned duration.
    """
    code = asyncio.ensure_future(process.wait())
    for elapsed in count():
        if (await asyncio.wait({code}, timeout=1))[0]:
            return code.result()
        if must_end.is_set() and has_started():
            must_end.clear()
            _end_locust(process)
        if elapsed <= seconds:
            show_elapsed(elapsed, seconds)
        elif elapsed > seconds + _TIMEOUT_SECONDS:
            break
    raise TimeoutError


async def _wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another process fulfils.

    Raises:
        TimeoutError: the condition is not fulfilled within 60 s.
    """
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110  no event reports what another process has done
            await asyncio.sleep(_POLL_SECONDS)


def locust_command(plan: Plan, folder: Path, *, web_port: int = 0) -> list[str]:
    """Return Locust's command line: with the web interface on `web_port`, or headless if the port is 0."""
    seconds, users = f"{max(1, round(plan.seconds))}s", str(plan.users)
    common = ["--host", plan.host, "--users", users, "--spawn-rate", users, "--run-time", seconds]
    reports = ["--html", str(folder / "locust.html"), "--csv", str(folder / "locust")]
    web = ["--web-host", "127.0.0.1", "--web-port", str(web_port), "--autostart"] if web_port else ["--headless"]
    workers = ["--processes", str(plan.processes)] if plan.processes > 1 else []
    exit_options = ["--stop-timeout", "12", "--exit-code-on-error", "0"]
    file = str(_ROOT / "loadtests" / "locustfile.py")
    return [sys.executable, "-m", "locust", "-f", file, *web, *common, *reports, *workers, *exit_options]


async def _check(
    target: Target,
    customers: Sequence[Customer],
    api: CustomerApi,
    writer: HistoryWriter,
    folder: Path,
    history: History,
) -> tuple[int, list[str], Verdict]:
    """Return the number of checked calls and snapshots, the violations and the verdict."""
    if not target.ledger:
        print_progress("no verdict without access to the ledger: name its database with --ledger")
        return 0, [], Verdict.UNPROVEN
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            await api.resolve(calls_from_records(read_records(folder)), customers)
    except TimeoutError:
        print_progress(f"some outcomes are still unknown after {_TIMEOUT_SECONDS:g} s of retries")
    writer.flush()
    accounts = [UUID(customer.account) for customer in customers]
    principals = [customer.principal for customer in customers]
    try:
        connection = await asyncpg.connect(target.ledger, timeout=_TIMEOUT_SECONDS)
        try:
            ledger = await rows.read_rows(connection, accounts, principals, [clearing_account_id("RUB")])
        finally:
            await connection.close()
    except DATABASE_ERRORS as error:
        print_progress(f"no verdict: the ledger's database is no longer available ({describe_error(error)})")
        return 0, [], Verdict.UNPROVEN
    records = list(read_records(folder))
    recorded = calls_from_records(records)
    calls = deposits_of_top_ups(recorded)
    violations = [*check_history(ledger, calls, history.snapshots), *check_top_up_marks(recorded)]
    violations += check_subscriptions(ledger, (each.subscription for each in records if each.subscription))
    operations = await _read_operations(api, customers, ledger)
    violations += check_operations(ledger, operations)
    integrity = await check_integrity(target)
    broken = [f"{name}: {verdict}" for name, verdict in integrity.items() if verdict.startswith("broken")]
    messages = [*map(str, violations), *broken]
    for message in messages[:_MAX_PRINTED]:
        print_progress(message)
    is_complete = len(operations) == len(customers) and "unavailable" not in integrity.values()
    verdict = Verdict.SOUND if is_complete else Verdict.UNPROVEN
    return len(calls) + len(history.snapshots), messages, Verdict.BROKEN if messages else verdict


async def _read_operations(
    api: CustomerApi, customers: Sequence[Customer], ledger: rows.LedgerRows
) -> dict[UUID, list[rows.Entry]]:
    """Return the operations of each customer.

    Each customer's operations are read repeatedly, for at most 60 s, until there are as many as in the ledger. The
    result lacks customers whose operations could not be read at all.
    """
    versions = {account.id: account.version for account in ledger.accounts}
    deadline = time.monotonic() + _TIMEOUT_SECONDS

    async def read(customer: Customer) -> tuple[UUID, list[rows.Entry] | None]:
        id_, entries = UUID(customer.account), None
        while (entries is None or len(entries) < versions[id_]) and time.monotonic() < deadline:
            with suppress(httpx.HTTPError, ValueError):  # ValueError: the response is not JSON
                entries = [rows.entry_from_rest(id_, each) for each in await api.list_operations(customer)]
            await asyncio.sleep(_POLL_SECONDS)
        return id_, entries

    results = await asyncio.gather(*map(read, customers))
    return {id_: entries for id_, entries in results if entries is not None}
