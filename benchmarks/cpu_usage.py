"""Processor time of processes and of the machine, read from /proc."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


def start_cpu_meter(pids: Mapping[str, Sequence[int]]) -> Callable[[], dict[str, float]]:
    """Start a measurement of processor time.

    Args:
        pids: process ids by kind of process.

    Returns:
        A function that returns the processor seconds since the start: by kind, and under `others` those of all other
        processes of the machine. A run with a high value of `others` should be discarded.
    """

    def read() -> dict[str, float]:
        used = {kind: sum(map(cpu_seconds, each)) for kind, each in pids.items()}
        return {**used, "others": machine_cpu_seconds() - sum(used.values())}

    before = read()
    return lambda: {kind: seconds - before[kind] for kind, seconds in read().items()}


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds of a process, its running descendants and its reaped children; 0 without /proc."""
    if not _PROC.exists():
        return 0.0
    processes = dict(filter(None, map(_read_stat, _PROC.glob("[0-9]*"))))
    ticks, pending = 0, [pid]
    while pending:
        current = pending.pop()
        ticks += processes.get(current, (0, 0))[1]
        pending += [child for child, (parent, _) in processes.items() if parent == current]
    return ticks / os.sysconf("SC_CLK_TCK")


def machine_cpu_seconds() -> float:
    """Return the processor seconds of all processes and those stolen by the hypervisor; 0 without /proc."""
    stat = _PROC / "stat"
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_guests = map(int, stat.read_text().split()[1:11])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _read_stat(entry: Path) -> tuple[int, tuple[int, int]] | None:
    """Return process id, parent id and used ticks (with those of reaped children); None if the process has ended."""
    try:
        stat = (entry / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the process name before the last `)` may have spaces and `)`
    return int(entry.name), (int(fields[1]), sum(map(int, fields[11:15])))
