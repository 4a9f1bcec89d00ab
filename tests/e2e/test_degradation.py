"""Each part of the system is stopped and started again. The effect must match the table in
`docs/reference/resilience.md`: a row is an outage, a column is a user action, a cell is its result during the outage.
"""

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import pytest

from stack import probes
from stack.engines.cluster import remove_cluster
from stack.ports import HOST, Ports, free_ports
from stack.process import Command, Process
from stack.system import System, full_system_plan, run_system
from tests.e2e.people import DONE, SHOWN, People, said
from tests.e2e.users import PASSWORD, NewUser
from tests.tools import lacking
from tests.waiting import until

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "resilience.md"
OUTAGE_SECONDS: Final = 2.0
CALL_SECONDS: Final = 2.0
CALL_LIMIT: Final = 50

LOSSES: Final[Mapping[str, Sequence[str]]] = {
    "postgres": ["postgres"],
    "kafka": ["kafka"],
    "clickhouse": ["clickhouse"],
    "bank": ["bank", "bank-2"],
    "card": ["card"],
    "analytics": ["analytics"],
    "identity": ["identity"],
    "acquirer": ["acquirer"],
    "redis": ["redis"],
    "one bank of two": ["bank"],
}
"""What is taken away, by the name of the row."""


def table() -> dict[str, dict[str, str]]:
    """The document's rows by name, each with its cells by column."""
    head, _, *rows = re.findall(r"^\|(.+)\|$", DOCUMENT.read_text().partition("\n## ")[0], re.MULTILINE)
    columns = [cell.strip() for cell in head.split("|")]
    cells = [[cell.strip().strip("`") for cell in row.split("|")] for row in rows]
    return {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in cells}


ROWS: Final = table()


def cases() -> Iterator[object]:
    """Every row, killed; and frozen in the long tier, but for who must not starve the others."""
    for name in ROWS:
        yield pytest.param(name, "killed", id=f"{name} killed")
        if name != "one bank of two":  # see the test of its own
            marks = [pytest.mark.faults] if name != "analytics" else []
            yield pytest.param(name, "frozen", id=f"{name} frozen", marks=marks)


def given(process: Process, name: str, **environment: str) -> Process:
    """The process with more, or other, settings."""

    async def command() -> Command:
        usual = await process.command()
        return replace(usual, environment={**usual.environment, **environment})

    return replace(process, name=name, command=command)


def after(seconds: float, process: Process) -> Process:
    """The process, once it has been waited for so long, and for no other one."""
    first = True

    async def command() -> Command:
        nonlocal first
        await asyncio.sleep(seconds if first else 0)
        first = False
        return await process.command()

    return replace(process, command=command, depends_on=())


def planner(seed: int, ports: Ports, data: Path) -> Sequence[Process]:
    """The usual system with a second bank, and rates in a Redis. Whatever stays is started in an order of chance."""
    program = shutil.which("redis-server")
    if program is None:
        lacking("there is no redis-server")
    redis, grpc, admin = free_ports(3)

    async def serve_redis() -> Command:
        arguments = ("--port", str(redis), "--bind", HOST, "--save", "", "--appendonly", "no")
        return Command((program, *arguments), dict(os.environ))

    plan = {process.name: process for process in full_system_plan(ports, data)}
    plan["redis"] = Process(name="redis", command=serve_redis, ready=probes.tcp(HOST, redis))
    second = given(plan["bank"], "bank-2", BANK_GRPC_LISTEN=f"{HOST}:{grpc}", BANK_ADMIN_LISTEN=f"{HOST}:{admin}")
    urls = {"metrics": f"http://{HOST}:{admin}"}
    plan["bank-2"] = replace(second, ready=probes.http(f"http://{HOST}:{admin}/health/ready"), ports={}, urls=urls)
    banks = f"ipv4:{HOST}:{ports.bank_grpc},{HOST}:{grpc}"
    for name in ("card", "analytics", "gateway"):
        plan[name] = given(plan[name], name, BANK_GRPC_TARGET=banks, GATEWAY_RATE_STORE=f"redis://{HOST}:{redis}/0")
    order = [name for name in plan if plan[name].ready]
    random.Random(seed).shuffle(order)
    print(f"seed {seed}: started in the order {', '.join(order)}")  # noqa: T201  shown when a test fails
    return [after(0.3 * order.index(name), plan[name]) if name in order else plan[name] for name in plan]


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    data = tmp_path_factory.mktemp("degradation")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CALL_TIMEOUT_SECONDS", str(CALL_SECONDS))
        environment.setenv("CALL_LIMIT", str(CALL_LIMIT))
        for limit in ("REQUESTS", "ANONYMOUS", "SIGN_IN"):
            environment.setenv(f"GATEWAY_RATE_{limit}", "1000000/minute")
        environment.setenv("IDENTITY_HASH_MEMORY_KIB", "1024")
        environment.setenv("IDENTITY_HASH_PASSES", "1")
        async with run_system(Ports.free(), data, planner=partial(planner, random.getrandbits(32))) as system:
            yield system
    remove_cluster(data)


@pytest.fixture
async def people(new_user: NewUser) -> People:
    credentials = {"username": f"u{uuid4().hex}", "password": PASSWORD}
    people = People(await new_user(), await new_user("0.00"), await new_user(), credentials)
    (await people.sender.http.post("/auth/register", json=credentials)).raise_for_status()
    return people


def send(system: System, parts: Sequence[str], number: signal.Signals) -> None:
    """A signal to the parts and all that they have started."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    family = [system.pid(part) for part in parts]
    for pid in family:
        family += children.get(pid, [])
    for pid in family:
        os.kill(pid, number)


@asynccontextmanager
async def without(system: System, parts: Sequence[str], way: str) -> AsyncIterator[None]:
    """The system without some of its parts, for two seconds at least."""
    ends_at = time.monotonic() + OUTAGE_SECONDS
    if way == "frozen":
        send(system, parts, signal.SIGSTOP)
    else:
        for part in parts:
            system.supervisor.children[part].kill()
        await asyncio.gather(*map(system.supervisor.stop_process, parts))
    try:
        yield
        await asyncio.sleep(max(0, ends_at - time.monotonic()))  # an outage lasts
    finally:
        if way == "frozen":
            send(system, parts, signal.SIGCONT)
        else:
            await asyncio.gather(*map(system.supervisor.start_process, parts))


async def test_the_parts_may_start_in_any_order(system: System, people: People) -> None:
    async with people.watching():
        await until(people.all_works, within=30)


@pytest.mark.parametrize(("name", "way"), list(cases()))
async def test_costs_what_the_table_says_and_needs_no_person(
    system: System, people: People, name: str, way: str, record_property: Callable[[str, object], None]
) -> None:
    clock = asyncio.get_running_loop().time
    bound = float(ROWS[name]["recovers within"].removesuffix(" s"))
    async with people.watching():
        await until(people.all_works, within=30)
        async with without(system, LOSSES[name], way):
            words = dict(zip(DONE, await asyncio.gather(*map(people.do, DONE)), strict=True))
            assert words == {column: ROWS[name][column] for column in DONE}
            await until(partial(people.becomes, "operations", ROWS[name]["operations"]), within=8)
            if words["transfer"] == "works":  # or there is nothing to show
                await until(partial(people.becomes, "feed", ROWS[name]["feed"]), within=8)
            await until(partial(are_not_ready, system, LOSSES[name], ROWS[name]["not ready"]), within=8)
            if words["account"] == "503":  # whose it is, only the bank knows
                assert said(await people.payer.http.get(f"/accounts/{people.payer.account}/operations")) == "503"
        back_at = clock()
        await until(people.all_works, within=bound)
        seconds = clock() - back_at
        print(f"{name}, {way}: whole again in {seconds:.1f} s")  # noqa: T201  what the document says
        record_property("whole_again_seconds", round(seconds, 1))
        for key in people.unknown:
            assert await people.pay(key) == "works"
        await until(people.all_shown)
    # Every transfer once, those of unknown outcome too; and the feed had each of them, in order, once.
    count = len(people.paid)
    assert len(set(people.paid)) == count
    assert await people.sender.balance() == Decimal("1000.00") - count
    assert people.balances == [Decimal(number) for number in range(1, count + 1)]


async def are_not_ready(system: System, lost: Sequence[str], named: str) -> bool:
    """Whether those that are named, and no others, say that they are not ready. All but the lost ones must be live."""
    unready: list[str] = []
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        for name, child in system.supervisor.children.items():
            if name in lost or "admin" not in child.process.urls:
                continue
            # The gateway's admin interface stands on nothing; what it stands on is told at its own port.
            admin = system.url if name == "gateway" else child.process.urls["admin"]
            assert (await http.get(f"{admin}/health/live")).status_code == 200
            if (await http.get(f"{admin}/health/ready")).status_code != 200:
                unready.append(name)
    return sorted(unready) == (sorted(named.split(", ")) if named != "none" else [])


def test_every_row_has_its_loss_and_every_loss_its_row() -> None:
    assert list(ROWS) == list(LOSSES)
    assert {row[column] for row in ROWS.values() for column in (*DONE, *SHOWN)} == {"works", "503", "later"}


async def refused(system: System) -> float:
    """How many questions for operations the gateway has not passed on to analytics."""
    async with httpx.AsyncClient(trust_env=False) as http:
        metrics = (await http.get(f"http://{HOST}:{system.ports.gateway_admin}/metrics")).text
    counts = re.findall(r"^wallet_calls_refused_total\{.*GetOperations.*\} (.+)$", metrics, re.MULTILINE)
    return sum(map(float, counts))


async def served(system: System) -> list[float]:
    """How many transfers each of the two banks has been asked for."""
    urls = (
        system.supervisor.children["bank"].process.urls["admin"],
        system.supervisor.children["bank-2"].process.urls["metrics"],
    )
    pattern = r'^wallet_rpc_duration_seconds_count\{.*"/wallet.bank.v1.BankService/TransferMoney".*\} (.+)$'
    async with httpx.AsyncClient(trust_env=False) as http:
        pages = [(await http.get(f"{url}/metrics")).text for url in urls]
    return [sum(map(float, re.findall(pattern, page, re.MULTILINE))) for page in pages]


class TestSilence:
    """What is there and does not answer. Each call of it is waited for until its time is up."""

    async def test_of_analytics_under_load_holds_up_no_transfer(self, system: System, people: People) -> None:
        clock = asyncio.get_running_loop().time

        async def ask() -> str:
            return said(await people.payer.http.get(f"/accounts/{people.payer.account}/operations"))

        await until(people.all_done, within=30)
        assert await ask() == "works"
        before = await refused(system)
        async with without(system, ["analytics"], "frozen"):
            asked = [asyncio.create_task(ask()) for _ in range(2 * CALL_LIMIT)]
            began = clock()
            assert [await people.transfer() for _ in range(20)] == ["works"] * 20
            each = (clock() - began) / 20
            assert set(await asyncio.gather(*asked)) == {"503"}
        print(f"a transfer took {each:.3f} s")  # noqa: T201
        assert await refused(system) - before >= CALL_LIMIT - 2  # or the calls that tried whether it answers again
        await until(people.all_done, within=10)

    async def test_of_one_bank_is_left_within_seconds(self, system: System, people: People) -> None:
        await until(people.all_done, within=30)
        began, answered = time.monotonic(), 0
        async with without(system, ["bank"], "frozen"):
            while answered < 10:  # in a row: by turns, it would have had half of them
                word = said(await people.sender.http.get(f"/accounts/{people.sender.account}"))
                answered = answered + 1 if word == "works" else 0
            print(f"a frozen replica was left after {time.monotonic() - began:.1f} s")  # noqa: T201
        await until(people.all_done, within=10)


class TestStop:
    """SIGTERM, as at every release; and ten seconds later SIGKILL, as Docker has it."""

    @pytest.mark.parametrize("part", ["gateway", "bank", "bank-2"])
    async def test_under_load_cuts_no_request(self, system: System, people: People, part: str) -> None:
        enough, stopped = asyncio.Event(), asyncio.Event()
        refused = 0

        async def pay() -> None:
            nonlocal refused
            while not stopped.is_set():
                try:
                    word = await people.transfer()
                except httpx.TransportError:  # nobody listens any more
                    return
                refused += word != "works"
                if len(people.paid) > 50:
                    enough.set()

        await until(people.all_done, within=30)
        before = await served(system)

        async def both_are_asked() -> bool:
            assert await people.transfer() == "works"
            return all(now > then for now, then in zip(await served(system), before, strict=True))

        await until(both_are_asked, within=30)  # who was away before may have been found again by nobody yet
        load = asyncio.gather(*(pay() for _ in range(8)))
        await enough.wait()
        await system.supervisor.stop_process(part)
        assert await system.supervisor.children[part].wait() == 0
        stopped.set()
        await load
        await system.supervisor.start_process(part)
        assert refused == 0
        # What was done was told: no answer got lost on the way out.
        assert await people.sender.balance() == Decimal("1000.00") - len(people.paid)
        await until(people.all_done, within=30)

    async def test_ends_by_itself_whatever_does_not_answer(self, system: System, people: People) -> None:
        await until(people.all_done, within=30)
        clock = asyncio.get_running_loop().time
        ended: dict[str, tuple[int, float]] = {}

        async def stop(part: str) -> None:
            began = clock()
            await system.supervisor.stop_process(part)
            ended[part] = await system.supervisor.children[part].wait(), round(clock() - began, 1)

        parts = ["gateway", "card", "analytics", "identity", "bank", "bank-2"]
        async with without(system, ["postgres", "kafka", "clickhouse", "acquirer"], "frozen"):
            begun = asyncio.gather(*map(people.do, (*DONE, "operations")), return_exceptions=True)
            await asyncio.sleep(0.2)
            await asyncio.gather(*map(stop, parts))
            await begun
        await asyncio.gather(*map(system.supervisor.start_process, parts))
        assert {code for code, _ in ended.values()} == {0}, f"not all ended well: {ended}"
        print(f"ended, with how much time for it: {ended}")  # noqa: T201
        await until(people.all_done, within=30)
