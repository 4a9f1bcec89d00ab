"""An outage of each part of the system has the effect that `docs/reference/resilience.md` documents.

In the table of the document a row is an outage, a column is a user action, and a cell is the result of the action
during the outage.
"""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import pytest

from stack.ports import HOST
from stack.system import System
from tests.e2e.outages.plan import BANKS, CALL_LIMIT
from tests.e2e.user_activity import ACTIONS, VIEWS, UserActivity, table_word
from tests.e2e.users import PASSWORD, NewUser
from tests.stopping import assert_stops
from tests.waiting import until

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "resilience.md"
OUTAGE_SECONDS: Final = 2.0
MADE_WHILE_FROZEN: Final = 20

OUTAGES: Final[Mapping[str, Sequence[str]]] = {
    "postgres": ["postgres"],
    "kafka": ["kafka"],
    "clickhouse": ["clickhouse"],
    "bank": BANKS,
    "card": ["card"],
    "analytics": ["analytics"],
    "identity": ["identity"],
    "acquirer": ["acquirer"],
    "redis": ["redis"],
    "one bank of two": ["bank"],
}
"""Processes that are killed or frozen, by the name of the row."""


def read_table() -> dict[str, dict[str, str]]:
    """Return the rows of the document by name, each as cells by column."""
    head, _, *rows = re.findall(r"^\|(.+)\|$", DOCUMENT.read_text().partition("\n## ")[0], re.MULTILINE)
    columns = [cell.strip() for cell in head.split("|")]
    cells = [[cell.strip().strip("`") for cell in row.split("|")] for row in rows]
    return {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in cells}


ROWS: Final = read_table()


def cases() -> Iterator[object]:
    """Yield a case with killed processes for each row, and a case with frozen processes for most rows.

    Cases with frozen processes have the mark `faults`, except that of analytics.
    """
    for name in ROWS:
        yield pytest.param(name, "killed", id=f"{name} killed")
        if name != "one bank of two":  # `TestFrozenParts` tests a frozen bank
            marks = [pytest.mark.faults] if name != "analytics" else []
            yield pytest.param(name, "frozen", id=f"{name} frozen", marks=marks)


@pytest.fixture
async def activity(new_user: NewUser) -> UserActivity:
    credentials = {"username": f"u{uuid4().hex}", "password": PASSWORD}
    activity = UserActivity(await new_user(), await new_user("0.00"), await new_user(), credentials)
    (await activity.sender.http.post("/auth/register", json=credentials)).raise_for_status()
    return activity


def send(system: System, parts: Sequence[str], number: signal.Signals) -> None:
    """Send a signal to the processes and their descendants."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    pids = [system.pid(part) for part in parts]
    for pid in pids:
        pids += children.get(pid, [])
    for pid in pids:
        os.kill(pid, number)


@asynccontextmanager
async def outage(system: System, parts: Sequence[str], kind: str) -> AsyncIterator[None]:
    """Kill or freeze the processes during the block, for at least two seconds; then start or continue them."""
    ends_at = time.monotonic() + OUTAGE_SECONDS
    if kind == "frozen":
        send(system, parts, signal.SIGSTOP)
    else:
        for part in parts:
            system.supervisor.children[part].kill()
        await asyncio.gather(*map(system.supervisor.stop_process, parts))
    try:
        yield
        await asyncio.sleep(max(0, ends_at - time.monotonic()))  # minimum duration of an outage
    finally:
        if kind == "frozen":
            send(system, parts, signal.SIGCONT)
        else:
            await asyncio.gather(*map(system.supervisor.start_process, parts))


async def test_processes_may_start_in_any_order(system: System, activity: UserActivity) -> None:
    async with activity.watching():
        await until(activity.all_works, within=60)


@pytest.mark.parametrize(("name", "kind"), list(cases()))
async def test_outage_has_the_documented_effect_and_recovers(
    system: System, activity: UserActivity, name: str, kind: str, record_property: Callable[[str, object], None]
) -> None:
    clock = asyncio.get_running_loop().time
    bound = float(ROWS[name]["recovers within"].removesuffix(" s"))
    async with activity.watching():
        await until(activity.all_works, within=60)
        async with outage(system, OUTAGES[name], kind):
            results = dict(zip(ACTIONS, await asyncio.gather(*map(activity.do, ACTIONS)), strict=True))
            assert results == {column: ROWS[name][column] for column in ACTIONS}
            await until(partial(activity.has_result, "operations", ROWS[name]["operations"]), within=8)
            if results["transfer"] == "works":  # otherwise the subscription has nothing to deliver
                await until(partial(activity.has_result, "subscription", ROWS[name]["subscription"]), within=8)
            await until(partial(are_not_ready, system, OUTAGES[name], ROWS[name]["not ready"]), within=8)
            if results["account"] == "503":  # analytics cannot ask the bank who owns an account that it has not read
                assert (
                    table_word(await activity.payer.http.get(f"/accounts/{activity.payer.account}/operations")) == "503"
                )
        back_at = clock()
        await until(activity.all_works, within=bound)
        seconds = clock() - back_at
        print(f"{name}, {kind}: recovered in {seconds:.1f} s")  # noqa: T201  figure for the document
        record_property("recovery_seconds", round(seconds, 1))
        for key in activity.unknown:
            assert await activity.pay(key) == "works"
        await until(activity.all_views_work)
    # Each transfer was made once, even if its outcome was unknown, and the subscription delivered it once, in order.
    count = len(activity.paid)
    assert len(set(activity.paid)) == count
    assert await activity.sender.balance() == Decimal("1000.00") - count
    assert activity.balances == [Decimal(number) for number in range(1, count + 1)]


async def are_not_ready(system: System, stopped: Sequence[str], expected: str) -> bool:
    """Return whether exactly the expected services are not ready. Fail if a running service is not live."""
    unready: list[str] = []
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        for name, child in system.supervisor.children.items():
            if name in stopped or "admin" not in child.process.urls:
                continue
            # The gateway reports its dependencies at its public port, not at the admin port.
            admin = system.url if name == "gateway" else child.process.urls["admin"]
            assert (await http.get(f"{admin}/health/live")).status_code == 200
            if (await http.get(f"{admin}/health/ready")).status_code != 200:
                unready.append(name)
    return sorted(unready) == (sorted(expected.split(", ")) if expected != "none" else [])


def test_table_and_outages_have_the_same_rows() -> None:
    assert list(ROWS) == list(OUTAGES)
    assert {row[column] for row in ROWS.values() for column in (*ACTIONS, *VIEWS)} == {"works", "503", "later"}


async def refused_calls(system: System) -> float:
    """Return the number of GetOperations calls that the gateway refused to send."""
    async with httpx.AsyncClient(trust_env=False) as http:
        metrics = (await http.get(f"http://{HOST}:{system.ports.gateway_admin}/metrics")).text
    counts = re.findall(r"^wallet_calls_refused_total\{.*GetOperations.*\} (.+)$", metrics, re.MULTILINE)
    return sum(map(float, counts))


async def transfer_calls(system: System) -> list[float]:
    """Return the number of TransferMoney calls of each bank."""
    name = r'wallet_rpc_duration_seconds_count\{.*"/wallet.bank.v1.BankService/TransferMoney".*\}'
    return await bank_metrics(system, name)


async def until_both_banks_serve(system: System, activity: UserActivity) -> None:
    """Transfer until both banks have made a transfer: the gateway may not have reconnected to both yet."""
    before = await transfer_calls(system)

    async def both_banks_serve() -> bool:
        assert await activity.transfer() == "works"
        return all(now > then for now, then in zip(await transfer_calls(system), before, strict=True))

    await until(both_banks_serve, within=30)


async def connections_in_use(system: System) -> list[float]:
    """Return the number of database connections that each bank uses now."""
    return await bank_metrics(system, "wallet_database_connections_in_use")


async def bank_metrics(system: System, name: str) -> list[float]:
    """Return for each bank the sum of the samples whose name and labels match a pattern."""
    urls = (
        system.supervisor.children["bank"].process.urls["admin"],
        system.supervisor.children["bank-2"].process.urls["metrics"],
    )
    pattern = f"^{name} (.+)$"
    async with httpx.AsyncClient(trust_env=False) as http:
        pages = [(await http.get(f"{url}/metrics")).text for url in urls]
    return [sum(map(float, re.findall(pattern, page, re.MULTILINE))) for page in pages]


class TestFrozenParts:
    """Frozen processes accept connections and do not respond, so each call waits until its deadline."""

    async def test_frozen_analytics_under_load_delays_no_transfer(self, system: System, activity: UserActivity) -> None:
        clock = asyncio.get_running_loop().time

        async def list_operations() -> str:
            return table_word(await activity.payer.http.get(f"/accounts/{activity.payer.account}/operations"))

        await until(activity.all_actions_work, within=30)
        assert await list_operations() == "works"
        before = await refused_calls(system)
        async with outage(system, ["analytics"], "frozen"):
            calls = [asyncio.create_task(list_operations()) for _ in range(2 * CALL_LIMIT)]
            started = clock()
            assert [await activity.transfer() for _ in range(20)] == ["works"] * 20
            seconds = (clock() - started) / 20
            assert set(await asyncio.gather(*calls)) == {"503"}
        print(f"a transfer took {seconds:.3f} s")  # noqa: T201
        assert await refused_calls(system) - before >= CALL_LIMIT - 2  # minus the probes of the circuit breaker
        await until(activity.all_actions_work, within=10)

    async def test_calls_move_from_a_frozen_bank_to_the_other(self, system: System, activity: UserActivity) -> None:
        await until(activity.all_actions_work, within=30)
        started, answered = time.monotonic(), 0
        async with outage(system, ["bank"], "frozen"):
            # Ten successes in a row: with round-robin, every other call would go to the frozen bank and fail.
            while answered < 10:
                result = table_word(await activity.sender.http.get(f"/accounts/{activity.sender.account}"))
                answered = answered + 1 if result == "works" else 0
            print(f"calls moved from the frozen bank after {time.monotonic() - started:.1f} s")  # noqa: T201
        await until(activity.all_actions_work, within=10)

    async def test_frozen_bank_stops_only_its_own_transfers(self, system: System, activity: UserActivity) -> None:
        async def others_are_made() -> bool:
            """Return whether many transfers were made before the first time-out on the frozen bank.

            The gateway has four calls on their way to two banks. If calls to the frozen bank kept their places, the
            other bank would get about four calls until then, each with a transfer or two.
            """
            await until(activity.all_actions_work, within=30)
            await until_both_banks_serve(system, activity)
            results: list[str] = []
            transfers: list[asyncio.Task[None]] = []

            async def transfer() -> None:
                results.append(await activity.transfer())

            async with outage(system, ["bank"], "frozen"):
                while results.count("works") < MADE_WHILE_FROZEN and "503" not in results:
                    transfers.append(asyncio.create_task(transfer()))
                    await activity.sender.http.get("/health/live")  # the next transfer starts in a later turn
                in_time = "503" not in results
                await asyncio.gather(*transfers)
            print(f"{results.count('works')} of {len(results)} transfers were made, in time: {in_time}")  # noqa: T201
            assert "503" in results, "no transfer went to the frozen bank"
            await until(activity.resolve_unknown, within=30)
            return in_time

        await until(others_are_made, within=30)  # once is enough: a slow machine starts few transfers in time
        assert await activity.sender.balance() == Decimal("1000.00") - len(activity.paid)


class TestGracefulStop:
    """A release stops each process with SIGTERM; with Docker, SIGKILL follows ten seconds later."""

    @pytest.mark.parametrize("part", ["gateway", "bank", "bank-2"])
    async def test_stop_under_load_interrupts_no_request(
        self, system: System, activity: UserActivity, part: str
    ) -> None:
        enough, stopped = asyncio.Event(), asyncio.Event()
        failed = 0

        async def pay() -> None:
            nonlocal failed
            while not stopped.is_set():
                try:
                    result = await activity.transfer()
                except httpx.TransportError:  # the gateway has stopped listening
                    return
                failed += result != "works"
                if len(activity.paid) > 50:
                    enough.set()

        await until(activity.all_actions_work, within=30)
        await until_both_banks_serve(system, activity)
        load = asyncio.gather(*(pay() for _ in range(8)))
        await enough.wait()
        await system.supervisor.stop_process(part)
        await assert_stops(system.supervisor.children[part])
        stopped.set()
        await load
        await system.supervisor.start_process(part)
        assert failed == 0
        # Every executed transfer has a successful response: no response was lost.
        assert await activity.sender.balance() == Decimal("1000.00") - len(activity.paid)
        await until(activity.all_actions_work, within=30)

    async def test_stop_ends_although_dependencies_do_not_respond(self, system: System, activity: UserActivity) -> None:
        await until(activity.all_actions_work, within=30)
        clock = asyncio.get_running_loop().time
        ended: dict[str, tuple[int, float]] = {}

        async def stop(part: str) -> None:
            started = clock()
            await system.supervisor.stop_process(part)
            ended[part] = await system.supervisor.children[part].wait(), round(clock() - started, 1)

        async def a_bank_waits() -> bool:
            return sum(await connections_in_use(system)) > in_use

        in_use = sum(await connections_in_use(system))
        parts = ["gateway", "card", "analytics", "identity", "bank", "bank-2"]
        async with outage(system, ["postgres", "kafka", "clickhouse", "acquirer"], "frozen"):
            actions = asyncio.gather(*map(activity.do, (*ACTIONS, "operations")), return_exceptions=True)
            await until(a_bank_waits)
            await asyncio.gather(*map(stop, parts))
            await actions
        await asyncio.gather(*map(system.supervisor.start_process, parts))
        assert {code for code, _ in ended.values()} == {0}, f"exit codes and seconds: {ended}"
        print(f"exit codes and seconds: {ended}")  # noqa: T201
        await until(activity.all_actions_work, within=30)
