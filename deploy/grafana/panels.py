"""What dashboards are made of: panels, and the PromQL that most of them ask."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure.

    Attributes:
        title: of the panel.
        unit: Grafana's name of it.
        queries: PromQL by legend, in which `{{label}}` is a label's value.
        bad: from which value on it is red; with `good_above`, below which.
        is_now: whether the last value is shown, large; else the course of it.
    """

    title: str
    unit: str
    queries: dict[str, str]
    bad: float | None = None
    good_above: bool = False
    is_now: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Panels in rows, each row with its title, and the alerts that they explain."""

    name: str
    title: str
    alerts: tuple[str, ...]
    rows: dict[str, list[Panel]]


def now(title: str, unit: str, query: str, legend: str = "", **options: Any) -> Panel:
    """The last value."""
    return Panel(title, unit, {legend: query}, is_now=True, **options)


def course(title: str, unit: str, queries: dict[str, str], **options: Any) -> Panel:
    """The course of some values."""
    return Panel(title, unit, queries, **options)


def rate(metric: str, by: str = "") -> str:
    """How often a second, in sum over the replicas."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[$__rate_interval]))"


def share(part: str, whole: str, by: str = "") -> str:
    """The share of the part's rate, 0 where there is none of the part."""
    return f"({rate(part, by)} or 0 * {rate(whole, by)}) / {rate(whole, by)}"


def mean(histogram: str) -> str:
    """Of a histogram, over the replicas."""
    return f"{rate(f'{histogram}_sum')} / {rate(f'{histogram}_count')}"


def quantile(q: float, histogram: str, selector: str = "", by: str = "") -> str:
    """Of a histogram, over the replicas."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket{selector}', f'le, {by}' if by else 'le')})"


def quantiles(histogram: str, selector: str = "") -> dict[str, str]:
    """The three that matter, by legend."""
    return {name: quantile(q, histogram, selector) for name, q in {"median": 0.5, "95 %": 0.95, "99 %": 0.99}.items()}
