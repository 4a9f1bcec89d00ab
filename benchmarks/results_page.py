"""Write the page of kept figures, `benchmarks/results/README.md`: `python -m benchmarks.results_page`."""

import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from benchmarks.figure import Figure
from loadtests.charts import STYLE, Bar, draw_bars, format_short

FOLDER: Final = Path(__file__).parent / "results"
LINES: Final = "results.jsonl"

_HEAD: Final = """# Benchmarks

This page is generated from [results.jsonl](results.jsonl): `make bench KEEP=1` adds a line for each figure that it
measures and writes the page anew. [Benchmarks](../../docs/reference/benchmarks.md#figures) defines each figure.

## Method

- Both sides of a ratio run on one machine, in one run, by turns, each with its own accounts or its own process. Ratios
  travel to other machines; the rates and times behind them do not, and stand in each line's `details`.
- Within a run each side counts with its best of three or more, since whatever else a machine does only slows it down.
- A figure's value here is the median of all runs that were kept; the least and the most beside it are the noise. A
  figure that was measured once says nothing of its noise.
- `cpu_seconds.others` in `details` is what strangers took of the processors meanwhile: where that is large, the line
  says little.
- Lines name the Python (but for the first few). Debian's and the image's are optimised by a profile; one that is not
  takes an eighth longer for what is mostly Python.
- PostgreSQL has fsync and synchronous_commit on. The system has its tokens, limits, logs and metrics on.
- After every run the ledger has to add up, and what Locust was told has to be true; a run that is wrong leaves no line.

## Figures

"""
_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {"ratios": ("ratio",), "times": ("ms", "us")}


@dataclass(frozen=True, slots=True)
class Kept:
    """A figure in all runs that were kept."""

    figure: str
    unit: str
    bar: float | None
    better: str
    values: Sequence[float]

    @property
    def holds(self) -> bool:
        """Whether its median meets the bar."""
        if self.bar is None:
            return True
        value = median(self.values)
        return value >= self.bar if self.better == "higher" else value <= self.bar


def keep(figure: Figure) -> None:
    """Adds a line."""
    FOLDER.mkdir(exist_ok=True)
    line: dict[str, Any] = {
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "python": f"{platform.python_version()}, {platform.python_compiler()}",
        **orjson.loads(figure.line()),
    }
    with (FOLDER / LINES).open("ab") as file:
        file.write(orjson.dumps(line) + b"\n")


def write(folder: Path = FOLDER) -> None:
    """The page and its plots, from the lines."""
    kept = read(folder)
    plots = []
    for name, units in _GROUPS.items():
        of_group = [each for each in kept if each.unit in units]
        if of_group:
            drawn = draw_bars(
                name, ", ".join(sorted({each.unit for each in of_group})), [_bar(each) for each in of_group]
            )
            (folder / f"{name}.svg").write_text(drawn.replace("><title>", f"><style>{STYLE}</style><title>", 1) + "\n")
            plots.append(f"![{name}]({name}.svg)\n")
    (folder / "README.md").write_text(_HEAD + table(kept) + "\n" + "\n".join(plots))


def read(folder: Path) -> list[Kept]:
    """Every figure that was kept, by name. What it is comes from its last line."""
    lines = [orjson.loads(line) for line in (folder / LINES).read_bytes().splitlines()]
    values: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        values[line["figure"]].append(line["value"])
    last = {line["figure"]: line for line in lines}
    return [
        Kept(name, last[name]["unit"], last[name]["bar"], last[name]["better"], values[name]) for name in sorted(last)
    ]


def table(kept: Sequence[Kept]) -> str:
    """For a page, as Markdown."""
    rows = ["| figure | least | median | most | unit | should be | runs |", "|---|---:|---:|---:|---|---|---:|"]
    for each in kept:
        least, middle, most = (
            format_short(value) for value in (min(each.values), median(each.values), max(each.values))
        )
        sign = "at least" if each.better == "higher" else "at most"
        bar = "" if each.bar is None else f"{sign} {each.bar:g}: {'holds' if each.holds else 'misses'}"
        rows.append(f"| `{each.figure}` | {least} | {middle} | {most} | {each.unit} | {bar} | {len(each.values)} |")
    return "\n".join(rows) + "\n"


def _bar(each: Kept) -> Bar:
    return Bar(each.figure, median(each.values), min(each.values), max(each.values), each.bar)


if __name__ == "__main__":
    write()
