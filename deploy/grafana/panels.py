"""Panels, dashboards and helpers for common PromQL queries."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Panel:
    """Panel with one or more queries.

    Attributes:
        title: shown above the panel.
        unit: Grafana's name of the unit.
        queries: PromQL by legend; `{{label}}` is replaced by the label's value.
        bad: threshold; the panel is red from this value on.
        good_above: the panel is red below the threshold instead.
        is_stat: show the last value instead of a time series.
    """

    title: str
    unit: str
    queries: dict[str, str]
    bad: float | None = None
    good_above: bool = False
    is_stat: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Rows of panels by title, and the alerts whose causes the panels show."""

    name: str
    title: str
    alerts: tuple[str, ...]
    rows: dict[str, list[Panel]]


def stat(title: str, unit: str, query: str, legend: str = "", **options: Any) -> Panel:
    """Return a panel that shows the last value."""
    return Panel(title, unit, {legend: query}, is_stat=True, **options)


def time_series(title: str, unit: str, queries: dict[str, str], **options: Any) -> Panel:
    """Return a panel that shows values over time."""
    return Panel(title, unit, queries, **options)


def rate(metric: str, by: str = "") -> str:
    """Return the query for the rate per second, summed over the replicas."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[$__rate_interval]))"


def share(part: str, whole: str, by: str = "") -> str:
    """Return the query for the ratio of two rates; 0 if `part` has no samples."""
    return f"({rate(part, by)} or 0 * {rate(whole, by)}) / {rate(whole, by)}"


def mean(histogram: str) -> str:
    """Return the query for the mean of a histogram over all replicas."""
    return f"{rate(f'{histogram}_sum')} / {rate(f'{histogram}_count')}"


def quantile(q: float, histogram: str, selector: str = "", by: str = "") -> str:
    """Return the query for a quantile of a histogram over all replicas."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket{selector}', f'le, {by}' if by else 'le')})"


def quantiles(histogram: str, selector: str = "") -> dict[str, str]:
    """Return the queries for median, 95th and 99th percentile, by legend."""
    return {name: quantile(q, histogram, selector) for name, q in {"median": 0.5, "95 %": 0.95, "99 %": 0.99}.items()}
