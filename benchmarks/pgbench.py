"""PostgreSQL's own tool on the same rows: what the bank is held against."""

import asyncio
import re
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.accounts import ACCOUNTS, OWNERS
from benchmarks.figure import BenchError, Options
from benchmarks.ledger import Ledger
from benchmarks.run import Run, cpu_meter
from stack.engines.postgres import Postgres

_SCRIPT: Final = Path(__file__).with_name("pgbench.sql")
_PROGRESS: Final = re.compile(r"^progress: ([0-9.]+) s, ([0-9.]+) tps", re.MULTILINE)
_PROCESSED: Final = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_FAILED: Final = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)
_LATENCY: Final = re.compile(r"^latency average = ([0-9.]+) ms", re.MULTILINE)
_GRACE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """What pgbench says of a run: transactions in all, their mean latency, and its speed after the warm-up."""

    transactions: int
    latency_ms: float
    rate: float

    @classmethod
    def parse(cls, text: str, warm_up: float) -> "Report":
        """From its output and its progress lines, one a second.

        Args:
            text: everything that it wrote.
            warm_up: seconds at the start that do not count for the speed.

        Raises:
            BenchError: it is no such report, or some transactions failed.
        """
        processed, failed, latency = (pattern.search(text) for pattern in (_PROCESSED, _FAILED, _LATENCY))
        # Each line is about the second before it.
        rates = [float(tps) for at, tps in _PROGRESS.findall(text) if float(at) >= warm_up + 0.9]
        if not (processed and failed and latency and rates):
            raise BenchError(f"pgbench said:\n{text}")
        if int(failed[1]):
            raise BenchError(f"{failed[1]} transactions of pgbench failed")
        return cls(int(processed[1]), float(latency[1]), sum(rates) / len(rates))


async def run(postgres: Postgres, ledger: Ledger, clients: int, options: Options) -> Run:
    """`pgbench.sql` by so many clients, each on a connection of its own.

    Raises:
        BenchError: pgbench failed, or the ledger does not add up.
    """
    await ledger.settle()
    used, own = cpu_meter({"postgres": [postgres.pid or 0]}), _children_cpu_seconds()
    url = urlsplit(ledger.url)
    seconds = round(options.warm_up + options.seconds)
    process = await asyncio.create_subprocess_exec(
        str(postgres.cluster.binaries / "pgbench"),
        *("--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=2", f"--time={seconds}", "--progress=1"),
        *(f"--define=accounts={ACCOUNTS}", f"--define=owners={OWNERS}", f"--file={_SCRIPT}", ledger.name),
        env={
            "PGHOST": url.hostname or "",
            "PGPORT": str(url.port),
            "PGUSER": url.username or "",
            "PGPASSWORD": url.password or "",
            "LC_ALL": "C",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds + _GRACE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise BenchError("pgbench does not end") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    if process.returncode:
        raise BenchError(f"pgbench failed:\n{text}")
    report = Report.parse(text, options.warm_up)
    cpu, pgbench = used(), _children_cpu_seconds() - own
    await ledger.check(report.transactions)
    return Run(
        name=f"pgbench, {clients} clients",
        rate=report.rate,
        acknowledged=report.transactions,
        details={
            "mean_latency_ms": report.latency_ms,
            "seconds": seconds,
            "cpu_seconds": {**cpu, "pgbench": pgbench, "others": cpu["others"] - pgbench},
        },
    ).told()


def _children_cpu_seconds() -> float:
    """Of every child that has ended: between two calls, of pgbench."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
