"""Check of PromQL queries against the metrics of our processes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

ROOT = Path(__file__).parents[1]

_OF_ALL = {"job", "instance"}
_PROMETHEUS = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity"}}
_SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "info": ["_info"]}
_WORDS = {"and", "or", "unless", "by", "on", "offset", "bool"}
_STRING = re.compile(r'"[^"]*"')
_LABELS = re.compile(r"\b(?:by|on) \(([^)]*)\)")
_SELECTOR = re.compile(r"(?<![\w.])(?P<name>[a-zA-Z_][\w:]*+)(?!\s*\()(?:\{(?P<matchers>[^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_DURATION = re.compile(r"\[[^\]]*\]|\boffset \w+")


@dataclass(frozen=True)
class Query:
    """Metrics and labels of a query.

    Attributes:
        metrics: labels in the selectors of each metric, by the metric's name.
        grouped_by: labels in the `by` and `on` clauses.
    """

    metrics: Mapping[str, set[str]]
    grouped_by: set[str]

    @classmethod
    def parse(cls, text: str) -> "Query":
        """Parse the subset of PromQL that we use: every word that is not a keyword or function is a metric."""
        text = _DURATION.sub(" ", _STRING.sub('""', text))
        grouped_by = {label.strip() for labels in _LABELS.findall(text) for label in labels.split(",")}
        metrics: dict[str, set[str]] = {}
        for found in _SELECTOR.finditer(_LABELS.sub(" ", text)):
            if found["name"] not in _WORDS:
                metrics.setdefault(found["name"], set()).update(_MATCHER.findall(found["matchers"] or ""))
        return cls(metrics, grouped_by)

    def faults(self, known: Mapping[str, set[str]], shown: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
        """Return a message for each metric and label that does not exist.

        Args:
            known: labels of every existing metric, by the metric's name.
            shown: labels of the result that a legend shows.
        """
        found = [f"unknown metric: {name}" for name in self.metrics.keys() - known.keys()]
        for name, labels in self.metrics.items():
            found += [f"{name} has no label {label}" for label in labels - known.get(name, set())]
        all_labels = set().union(*(known.get(name, set()) for name in self.metrics))
        found += [f"no metric has the label {label} to group by" for label in self.grouped_by - all_labels]
        left = self.grouped_by or all_labels
        return found + [f"the result has no label {label} to show" for label in shown - left]


@cache
def known_metrics() -> dict[str, set[str]]:
    """Return the labels of every series of our processes and of Prometheus, by name."""
    for module in ("kit.telemetry", "kit.http", "gateway.http", "gateway.graphql.execution"):
        import_module(f"{module}.metrics")
    for path in sorted(ROOT.glob("subgraphs/*/service/metrics.py")):
        import_module(f"subgraphs.{path.parent.parent.name}.service.metrics")
    found = dict(_PROMETHEUS)
    for collector in list(REGISTRY._collector_to_names):
        if not isinstance(collector, MetricWrapperBase):
            found |= {sample.name: set(sample.labels) for family in collector.collect() for sample in family.samples}
            continue
        labels = set(collector._labelnames)
        if collector._type == "stateset":
            labels.add(collector._name)
        if collector._type == "info":
            labels |= {label for family in collector.collect() for sample in family.samples for label in sample.labels}
        for suffix in _SUFFIXES.get(str(collector._type), [""]):
            found[collector._name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return {name: labels | _OF_ALL for name, labels in found.items()}
