"""`make report`: one HTML page about a run, without scripts or external files.

Usage: `python -m loadtests.report [FOLDER]`.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Final

import orjson

from loadtests.charts import STYLE, Band, draw_lines
from loadtests.customers import CHECKER
from loadtests.history.storage import RequestRecord, read_records
from loadtests.plan import Plan
from loadtests.run import FILE, REPORTS, Outcome
from loadtests.sampling import Sample, read_samples
from loadtests.statistics import percentiles

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


def render_page(folder: Path) -> str:
    """Return the page as HTML.

    Raises:
        FileNotFoundError: the folder has no completed run.
    """
    outcome = Outcome(**orjson.loads((folder / FILE).read_bytes()))
    plan = Plan.read(folder)
    records = [each for each in read_records(folder) if each.name != CHECKER]
    began, end = outcome.began, outcome.ended - outcome.began
    bands = [Band(fault["name"], fault["began"] - began, fault["ended"] - began) for fault in outcome.faults]
    samples = [sample for sample in read_samples(folder) if 0 <= sample.at - began <= end]
    charts = {
        "Responses": ("per second", _rates(records, began)),
        "Latency": ("milliseconds, by second", _latencies(records, began)),
        "Batch size of the bank": ("commands per batch", {"batch size": _batch_sizes(samples, began)}),
        "Backlog": ("operations", _gauges(samples, began, {"outbox": "backlog", "consumer lag": "lag"})),
        "Memory": ("private MiB by component", _memory(samples, began)),
    }
    drawings = "".join(
        f'<h2>{title} <span class="soft">{unit}</span></h2>{draw_lines(title, series, end, bands)}'
        for title, (unit, series) in charts.items()
        if series
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Load: {escape(_headline(plan))}</title><style>{_CSS}{STYLE}</style><body>"
        f'<h1>{escape(_headline(plan))}</h1><p class="soft">{escape(_subtitle(plan))}</p>{_cards(outcome)}'
        f"{_violations(outcome)}{drawings}{_faults(outcome)}{_requests(records)}</body></html>\n"
    )


def _headline(plan: Plan) -> str:
    return f"{', '.join(plan.scenarios)}: {plan.users} users"


def _subtitle(plan: Plan) -> str:
    rate = f"open loop, {plan.rate:g} requests per second" if plan.rate else "closed loop"
    shape = f", {plan.shape}" if plan.shape else ""
    return f"{rate}{shape}; {len(plan.customers)} accounts, {plan.account_selection}; seed {plan.seed}; {plan.host}"


def _cards(outcome: Outcome) -> str:
    cards = {
        f"{outcome.calls} calls and snapshots checked": outcome.verdict.capitalize(),
        "responses per second": f"{outcome.rate:.1f}",
        **{f"{name} latency": f"{value:.0f} ms" for name, value in outcome.latency_ms.items()},
        "errors": str(sum(outcome.errors.values())),
        "dropped": str(outcome.dropped),
    }
    body = "".join(
        f"<div class='card {value.upper()}'><b>{value}</b><span>{name}</span></div>" for name, value in cards.items()
    )
    return f'<div class="cards">{body}</div>'


def _violations(outcome: Outcome) -> str:
    if not outcome.violations:
        return ""
    text = "\n\n".join(outcome.violations[:20])
    return f"<h2>{len(outcome.violations)} violations</h2><pre>{escape(text)}</pre>"


def _faults(outcome: Outcome) -> str:
    rows = [
        [fault["name"], f"{fault['began'] - outcome.began:.1f} s", f"{fault['ended'] - fault['began']:.1f} s",
         f"{fault.get('recovered', 0.0):.1f} s"]
        for fault in outcome.faults
    ]  # fmt: skip
    return _table("Faults", ["fault", "start", "duration", "recovery"], rows)


def _requests(records: Sequence[RequestRecord]) -> str:
    by_name: dict[str, list[RequestRecord]] = defaultdict(list)
    for each in records:
        if not each.dropped:
            by_name[each.name].append(each)
    rows = []
    for name, requests in sorted(by_name.items()):
        messages = [ms for each in requests if each.subscription for ms in each.subscription.latencies_ms]
        times = messages or [_latency_ms(each) for each in requests if not each.error and not each.subscription]
        errors = Counter(each.error for each in requests if each.error)
        kinds = ", ".join(f"{count} {kind}" for kind, count in errors.most_common())
        columns = [f"{value:.0f} ms" for value in percentiles(times).values()] or ["", "", ""]
        rows.append([name, str(len(messages) or len(requests)), *columns, kinds])
    return _table("Requests", ["", "count", "p50", "p95", "p99", "errors"], rows)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{cells}</table>"


def _rates(records: Sequence[RequestRecord], began: float) -> Mapping[str, list[tuple[float, float]]]:
    counters: dict[str, Counter[int]] = {
        "correct": Counter(int(each.ended - began) for each in records if _is_correct(each)),
        "errors": Counter(int(each.ended - began) for each in records if each.error),
        "dropped": Counter(int(each.due - began) for each in records if each.dropped),
    }
    last = max((second for counts in counters.values() for second in counts), default=0)
    return {
        name: [(second + 0.5, counts[second]) for second in range(last)]
        for name, counts in counters.items()
        if counts or name == "correct"
    }


def _latencies(records: Sequence[RequestRecord], began: float) -> Mapping[str, list[tuple[float, float]]]:
    by_second: dict[int, list[float]] = defaultdict(list)
    for each in filter(_is_correct, records):
        by_second[int(each.ended - began)].append(_latency_ms(each))
    points: dict[str, list[tuple[float, float]]] = {"p50": [], "p95": [], "p99": []}
    for second, values in sorted(by_second.items()):
        for name, value in percentiles(values).items():
            points[name].append((second + 0.5, value))
    return points


def _is_correct(record: RequestRecord) -> bool:
    """Return whether the record is a request with a correct response."""
    return not (record.error or record.subscription or record.dropped)


def _latency_ms(record: RequestRecord) -> float:
    return 1_000 * (record.ended - record.due)


def _batch_sizes(samples: Sequence[Sample], began: float) -> list[tuple[float, float]]:
    points = []
    for earlier, later in pairwise(samples):
        commands, batches = (later.metrics.get(n, 0) - earlier.metrics.get(n, 0) for n in ("commands", "batches"))
        if batches > 0:  # the counters of a restarted bank start at 0 again
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
    """Write the page of the newest run, or of the given folder, and return the exit code: 1 without a page."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.report", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="folder of a run; default: the newest")
    folder = parser.parse_args().folder or max((each.parent for each in REPORTS.glob(f"*/{FILE}")), default=None)
    if folder is None:
        sys.stderr.write("error: no completed run; start one with `make load`\n")
        return 1
    try:
        (folder / PAGE).write_text(render_page(folder))
    except FileNotFoundError:
        sys.stderr.write(f"error: {folder} has no completed run: name a folder that a load test has written\n")
        return 1
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.stderr.write(f"error: no report of {folder}: {error or type(error).__name__}\n")
        return 1
    sys.stdout.write(f"{folder / PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
