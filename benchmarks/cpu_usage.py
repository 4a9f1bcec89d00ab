"""What processes have used of the processors, from /proc."""

import os
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


def cpu_seconds(pid: int) -> float:
    """Of the process, of its children that it has waited for, and of those that run, down the tree. 0 without /proc."""
    if not _PROC.exists():
        return 0.0
    processes = dict(filter(None, map(_read, _PROC.glob("[0-9]*"))))
    ticks, pending = 0, [pid]
    while pending:
        current = pending.pop()
        ticks += processes.get(current, (0, 0))[1]
        pending += [child for child, (parent, _) in processes.items() if parent == current]
    return ticks / os.sysconf("SC_CLK_TCK")


def machine_cpu_seconds() -> float:
    """Of everybody, and what a hypervisor kept for others. 0 without /proc."""
    stat = _PROC / "stat"
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_guests = map(int, stat.read_text().split()[1:11])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _read(entry: Path) -> tuple[int, tuple[int, int]] | None:
    """A process, its parent, and the ticks that it and its reaped children have used; None when it is gone."""
    try:
        stat = (entry / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything; its end is the last bracket
    return int(entry.name), (int(fields[1]), sum(map(int, fields[11:15])))
