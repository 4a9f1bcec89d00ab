"""Reference for the bank's figures: pgbench, PostgreSQL's benchmark tool, writes a transfer's rows with plain SQL."""

import asyncio
import re
import resource
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.accounts import ACCOUNTS, OWNERS
from benchmarks.cpu_usage import start_cpu_meter
from benchmarks.figure import BenchError, Options
from benchmarks.ledger import Ledger
from benchmarks.run import Run
from stack.engines.postgres import Postgres

_SCRIPT: Final = Path(__file__).with_name("pgbench.sql")
_PROGRESS: Final = re.compile(r"^progress: ([0-9.]+) s, ([0-9.]+) tps", re.MULTILINE)
_PROCESSED: Final = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_FAILED: Final = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)
_LATENCY: Final = re.compile(r"^latency average = ([0-9.]+) ms", re.MULTILINE)
_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class PgbenchReport:
    """Results that pgbench prints.

    Attributes:
        transactions: number of all transactions, including those of the warm-up.
        latency_ms: mean latency of all transactions.
        rate: transactions per second after the warm-up.
    """

    transactions: int
    latency_ms: float
    rate: float

    @classmethod
    def parse(cls, text: str, warm_up: float) -> "PgbenchReport":
        """Parse the output of pgbench, which has one progress line per second.

        Args:
            text: complete output.
            warm_up: seconds at the start that do not count for the rate.

        Raises:
            BenchError: the output is incomplete, or transactions failed.
        """
        processed, failed, latency = (pattern.search(text) for pattern in (_PROCESSED, _FAILED, _LATENCY))
        # A progress line at time t reports the second before t. It counts if this second starts after the warm-up.
        rates = [float(tps) for at, tps in _PROGRESS.findall(text) if float(at) >= warm_up + 0.9]
        if not (processed and failed and latency and rates):
            raise BenchError(f"pgbench printed no complete report:\n{text}")
        if int(failed[1]):
            raise BenchError(f"{failed[1]} transactions of pgbench failed")
        return cls(int(processed[1]), float(latency[1]), sum(rates) / len(rates))


async def run_pgbench(postgres: Postgres, ledger: Ledger, clients: int, options: Options) -> Run:
    """Run `pgbench.sql` with a number of clients, each on its own connection.

    Raises:
        BenchError: pgbench failed, or the ledger is not consistent afterwards.
    """
    await ledger.vacuum()
    read_cpu, pgbench_before = start_cpu_meter({"postgres": [postgres.pid or 0]}), _children_cpu_seconds()
    url = urlsplit(ledger.url)
    seconds = ceil(options.warm_up_seconds + options.seconds)  # rounded up: the last second must be complete
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
        async with asyncio.timeout(seconds + _TIMEOUT_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise BenchError(f"pgbench did not end in {seconds + _TIMEOUT_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    if process.returncode:
        raise BenchError(f"pgbench failed:\n{text}")
    report = PgbenchReport.parse(text, options.warm_up_seconds)
    cpu, pgbench = read_cpu(), _children_cpu_seconds() - pgbench_before
    await ledger.verify(report.transactions)
    run = Run(
        name=f"pgbench, {clients} clients",
        rate=report.rate,
        acknowledged=report.transactions,
        details={
            "mean_latency_ms": report.latency_ms,
            "seconds": seconds,
            "cpu_seconds": {**cpu, "pgbench": pgbench, "others": cpu["others"] - pgbench},
        },
    )
    run.print_summary()
    return run


def _children_cpu_seconds() -> float:
    """Return the processor seconds of all ended child processes.

    Between two calls of this function, pgbench is the only child process that ends.
    """
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
