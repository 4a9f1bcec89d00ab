"""Write the page of kept results, `benchmarks/results/README.md`: `python -m benchmarks.results_page`."""

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

This page is generated from [results.jsonl](results.jsonl): `make bench KEEP=1` adds a line for each measured figure and
writes the page again. [Benchmarks](../../docs/reference/benchmarks.md#figures) defines each figure.

## Method

- Both sides of a ratio run in turns on one machine. Ratios can be compared between machines. The rates and times from
  which they are computed cannot; they are in the `details` of each line.
- Each side of a ratio of rates has at least two runs. The fastest one counts, because interference only makes runs
  slower.
- The value of a figure on this page is the median of all kept measurements; minimum and maximum show the variation. A
  figure with one measurement shows no variation.
- `cpu_seconds.others` in `details` is the processor time of unrelated processes; discard a line where it is high.
- `python` in a line is the Python version and the compiler that built it; the oldest lines do not have it. The Python
  of Debian and that of the container image are built with profile-guided optimisation. Python code takes an eighth more
  time with a build without it.
- PostgreSQL has fsync and synchronous_commit on. In the complete system, token checks, rate limit counters, logs and
  metrics are on.
- After each run of a `bank.*` or `scale.*` figure the ledger is checked. After the soak the history checker compares
  the recorded responses with the ledger. A run with a violation adds no line.

## Figures

"""
_PLOTS: Final[Mapping[str, tuple[str, ...]]] = {"ratios": ("ratio",), "times": ("ms", "us")}
"""Units of the figures in each plot, by the name of its file."""


@dataclass(frozen=True, slots=True)
class KeptFigure:
    """A figure with its values in all kept measurements."""

    figure: str
    unit: str
    bar: float | None
    better: str
    values: Sequence[float]

    @property
    def meets_target(self) -> bool:
        """True if the median meets the target, or if there is none."""
        if self.bar is None:
            return True
        value = median(self.values)
        return value >= self.bar if self.better == "higher" else value <= self.bar


def keep_figure(figure: Figure) -> None:
    """Add a line to the kept results."""
    FOLDER.mkdir(exist_ok=True)
    line: dict[str, Any] = {
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "python": f"{platform.python_version()}, {platform.python_compiler()}",
        **orjson.loads(figure.to_json()),
    }
    with (FOLDER / LINES).open("ab") as file:
        file.write(orjson.dumps(line) + b"\n")


def write_page(folder: Path = FOLDER) -> None:
    """Write the page and its plots from the lines."""
    kept = read_results(folder)
    plots = []
    for name, units in _PLOTS.items():
        plotted = [figure for figure in kept if figure.unit in units]
        if plotted:
            title = ", ".join(sorted({figure.unit for figure in plotted}))
            svg = draw_bars(name, title, [_bar(figure) for figure in plotted])
            (folder / f"{name}.svg").write_text(svg.replace("><title>", f"><style>{STYLE}</style><title>", 1) + "\n")
            plots.append(f"![{name}]({name}.svg)\n")
    (folder / "README.md").write_text(_HEAD + figures_table(kept) + "\n" + "\n".join(plots))


def read_results(folder: Path) -> list[KeptFigure]:
    """Return every kept figure, sorted by name. Unit and target are those of its last line."""
    lines = [orjson.loads(line) for line in (folder / LINES).read_bytes().splitlines()]
    values: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        values[line["figure"]].append(line["value"])
    last = {line["figure"]: line for line in lines}
    return [
        KeptFigure(name, last[name]["unit"], last[name]["bar"], last[name]["better"], values[name])
        for name in sorted(last)
    ]


def figures_table(kept: Sequence[KeptFigure]) -> str:
    """Return the figures as a Markdown table."""
    rows = ["| figure | minimum | median | maximum | unit | target | runs |", "|---|---:|---:|---:|---|---|---:|"]
    for figure in kept:
        values = figure.values
        numbers = " | ".join(format_short(value) for value in (min(values), median(values), max(values)))
        bound = "at least" if figure.better == "higher" else "at most"
        status = "met" if figure.meets_target else "missed"
        target = "" if figure.bar is None else f"{bound} {figure.bar:g}: {status}"
        rows.append(f"| `{figure.figure}` | {numbers} | {figure.unit} | {target} | {len(values)} |")
    return "\n".join(rows) + "\n"


def _bar(figure: KeptFigure) -> Bar:
    return Bar(figure.figure, median(figure.values), min(figure.values), max(figure.values), figure.bar)


if __name__ == "__main__":
    write_page()
