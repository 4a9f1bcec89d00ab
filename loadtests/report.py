"""`make report`: one page about one run, which needs nothing but itself: `python -m loadtests.report [FOLDER]`."""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Final

import orjson

from loadtests import watch
from loadtests.charts import STYLE, Band, lines
from loadtests.customers import CHECKER
from loadtests.history import log
from loadtests.history.log import Line
from loadtests.plan import Plan
from loadtests.run import FILE, REPORTS, Outcome
from loadtests.statistics import percentiles
from loadtests.watch import Sample

PAGE: Final = "report.html"

_MEBIBYTE: Final = 2**20
_CSS: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 980px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
h2 .soft { font-weight: 400; font-size: .85rem; }
p { margin: .3rem 0; } .soft { opacity: .7; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem; }
.card b { display: block; font-size: 1.3rem; font-weight: 600; } .card span { opacity: .7; font-size: .8rem; }
.SOUND b { color: #059669; } .BROKEN b, .UNPROVEN b { color: #dc2626; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
pre { background: var(--soft); padding: .8rem; border-radius: 6px; font-size: .8rem; white-space: pre-wrap; }
"""


def page(folder: Path) -> str:
    """What is known of the run, as HTML.

    Raises:
        FileNotFoundError: no run ended in that folder.
    """
    outcome = Outcome(**orjson.loads((folder / FILE).read_bytes()))
    plan = Plan.read(folder)
    asked = [line for line in log.read(folder) if line.name != CHECKER]
    began, end = outcome.began, outcome.ended - outcome.began
    bands = [Band(fault["name"], fault["began"] - began, fault["ended"] - began) for fault in outcome.faults]
    samples = [sample for sample in watch.read(folder) if 0 <= sample.at - began <= end]
    charts = {
        "Answers": ("in each second", _rates(asked, began)),
        "Latency": ("milliseconds, in each second", _latencies(asked, began)),
        "Batches of the bank": ("commands in each", {"batch size": _batches(samples, began)}),
        "What waits": ("operations", _gauges(samples, began, {"outbox": "backlog", "consumer lag": "lag"})),
        "Memory": ("MiB of each process's own", _memory(samples, began)),
    }
    drawn = "".join(
        f'<h2>{title} <span class="soft">{unit}</span></h2>{lines(title, series, end, bands)}'
        for title, (unit, series) in charts.items()
        if series
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Load: {escape(_headline(plan))}</title><style>{_CSS}{STYLE}</style><body>"
        f'<h1>{escape(_headline(plan))}</h1><p class="soft">{escape(_described(plan))}</p>{_cards(outcome)}'
        f"{_violations(outcome)}{drawn}{_faults(outcome)}{_operations(asked)}</body></html>\n"
    )


def _headline(plan: Plan) -> str:
    return f"{', '.join(plan.scenarios)}: {plan.users} users"


def _described(plan: Plan) -> str:
    rate = f"open loop, {plan.rate:g} requests a second" if plan.rate else "closed loop"
    shape = f", {plan.shape}" if plan.shape else ""
    return f"{rate}{shape}; {len(plan.customers)} accounts, {plan.choice}; {plan.host}"


def _cards(outcome: Outcome) -> str:
    cards = {
        f"{outcome.calls} calls and sums judged": outcome.verdict.capitalize(),
        "answers a second": f"{outcome.rate:.1f}",
        **{f"{name} of an answer": f"{value:.0f} ms" for name, value in outcome.latency_ms.items()},
        "errors": str(sum(outcome.errors.values())),
        "dropped": str(outcome.dropped),
    }
    shown = "".join(
        f"<div class='card {value.upper()}'><b>{value}</b><span>{name}</span></div>" for name, value in cards.items()
    )
    return f'<div class="cards">{shown}</div>'


def _violations(outcome: Outcome) -> str:
    if not outcome.violations:
        return ""
    shown = "\n\n".join(outcome.violations[:20])
    return f"<h2>{len(outcome.violations)} violations</h2><pre>{escape(shown)}</pre>"


def _faults(outcome: Outcome) -> str:
    rows = [
        [fault["name"], f"{fault['began'] - outcome.began:.1f} s", f"{fault['ended'] - fault['began']:.1f} s",
         f"{fault.get('recovered', 0.0):.1f} s"]
        for fault in outcome.faults
    ]  # fmt: skip
    return _table("Faults", ["fault", "at", "lasted", "all works again after"], rows)


def _operations(asked: Sequence[Line]) -> str:
    by_name: dict[str, list[Line]] = defaultdict(list)
    for line in asked:
        if not line.dropped:
            by_name[line.name].append(line)
    rows = []
    for name, all_of_it in sorted(by_name.items()):
        told = [ms for line in all_of_it if line.feed for ms in line.feed.latencies_ms]
        took = told or [1_000 * (line.ended - line.due) for line in all_of_it if not line.error and not line.feed]
        errors = Counter(line.error for line in all_of_it if line.error)
        kinds = ", ".join(f"{count} {kind}" for kind, count in errors.most_common())
        times = [f"{value:.0f} ms" for value in percentiles(took).values()] or ["", "", ""]
        rows.append([name, str(len(told) or len(all_of_it)), *times, kinds])
    return _table("What was asked", ["", "times", "p50", "p95", "p99", "errors"], rows)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{cells}</table>"


def _rates(asked: Sequence[Line], began: float) -> Mapping[str, list[tuple[float, float]]]:
    kinds: dict[str, Counter[int]] = {
        "answered": Counter(int(line.ended - began) for line in asked if not line.error and not _is_aside(line)),
        "errors": Counter(int(line.ended - began) for line in asked if line.error),
        "dropped": Counter(int(line.due - began) for line in asked if line.dropped),
    }
    last = max((second for counts in kinds.values() for second in counts), default=0)
    shown = {name: counts for name, counts in kinds.items() if counts or name == "answered"}
    return {name: [(second + 0.5, counts[second]) for second in range(last)] for name, counts in shown.items()}


def _latencies(asked: Sequence[Line], began: float) -> Mapping[str, list[tuple[float, float]]]:
    by_second: dict[int, list[float]] = defaultdict(list)
    for line in asked:
        if not line.error and not _is_aside(line):
            by_second[int(line.ended - began)].append(1_000 * (line.ended - line.due))
    points: dict[str, list[tuple[float, float]]] = {"p50": [], "p95": [], "p99": []}
    for second, values in sorted(by_second.items()):
        for name, value in percentiles(values).items():
            points[name].append((second + 0.5, value))
    return points


def _is_aside(line: Line) -> bool:
    """Neither asked nor answered as a request is."""
    return bool(line.feed or line.dropped)


def _batches(samples: Sequence[Sample], began: float) -> list[tuple[float, float]]:
    points = []
    for earlier, later in pairwise(samples):
        commands, batches = (later.metrics.get(n, 0) - earlier.metrics.get(n, 0) for n in ("commands", "batches"))
        if batches > 0:  # a bank that was killed counts from nought again
            points.append((later.at - began, commands / batches))
    return points


def _gauges(
    samples: Sequence[Sample], began: float, names: Mapping[str, str]
) -> Mapping[str, list[tuple[float, float]]]:
    def points(metric: str) -> list[tuple[float, float]]:
        return [(sample.at - began, sample.metrics[metric]) for sample in samples if metric in sample.metrics]

    return {name: points(metric) for name, metric in names.items()}


def _memory(samples: Sequence[Sample], began: float) -> Mapping[str, list[tuple[float, float]]]:
    names = sorted({name for sample in samples for name in sample.memory})
    return {
        name: [(sample.at - began, sample.memory[name] / _MEBIBYTE) for sample in samples if name in sample.memory]
        for name in names
    }


def main() -> int:
    """Writes the page of the newest run, or of the folder that is named."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.report", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of a run; by default of the newest")
    folder = parser.parse_args().folder or max((each.parent for each in REPORTS.glob(f"*/{FILE}")), default=None)
    if folder is None:
        sys.stderr.write("error: there is no run yet: `make load` makes one\n")
        return 1
    (folder / PAGE).write_text(page(folder))
    sys.stdout.write(f"{folder / PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
