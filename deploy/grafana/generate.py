"""Write the dashboards as Grafana's JSON: `python -m deploy.grafana.generate`, run by `make gen`.

The folder `provisioning` is mounted as Grafana's `/etc/grafana/provisioning`. Each dashboard ends with the runbook
sections of its alerts.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from deploy.grafana.dashboards import DASHBOARDS
from deploy.grafana.panels import Dashboard, Panel

FOLDER: Final = Path(__file__).parent / "provisioning" / "dashboards"
RUNBOOK: Final = Path(__file__).parents[2] / "docs" / "how-to" / "runbook.md"

_WIDTH: Final = 24
_HEIGHTS: Final = {"stat": 4, "timeseries": 8, "text": 16}
_DATASOURCE: Final = {"type": "prometheus", "uid": "prometheus"}


def dashboard_to_json(dashboard: Dashboard) -> dict[str, Any]:
    """Return the dashboard as Grafana's JSON."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in dashboard.rows.items():
        panels.append(_row(title, top))
        height = max(_HEIGHTS[_kind(panel)] for panel in row)
        for column, panel in enumerate(row):
            left, right = (_WIDTH * each // len(row) for each in (column, column + 1))
            panels.append(_panel(panel) | {"gridPos": {"x": left, "y": top + 1, "w": right - left, "h": height}})
        top += 1 + height
    text = {
        "type": "text",
        "title": "",
        "options": {"mode": "markdown", "content": runbook_sections(dashboard.alerts)},
        "gridPos": {"x": 0, "y": top + 1, "w": _WIDTH, "h": _HEIGHTS["text"]},
    }
    panels.append(_row("Runbook", top) | {"collapsed": True, "panels": [text]})
    return {
        "uid": f"wallet-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["wallet"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "title": "Wallet", "tags": ["wallet"], "keepTime": True}],
        "annotations": {"list": [_annotation(dashboard.alerts)]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def runbook_sections(alerts: tuple[str, ...]) -> str:
    """Return the runbook sections of these alerts."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL))
    text = "\n".join(f"## {alert}\n{sections[alert]}" for alert in alerts)
    return re.sub(r"\[(\w+)\]\(#\w+\)", r"\1", text).strip()


def _row(title: str, top: int) -> dict[str, Any]:
    position = {"x": 0, "y": top, "w": _WIDTH, "h": 1}
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": position}


def _kind(panel: Panel) -> str:
    return "stat" if panel.is_stat else "timeseries"


def _panel(panel: Panel) -> dict[str, Any]:
    first_color, threshold_color = ("red", "green") if panel.good_above else ("green", "red")
    steps: list[dict[str, Any]] = [{"color": first_color, "value": None}]
    if panel.bad is not None:
        steps.append({"color": threshold_color, "value": panel.bad})
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    options: dict[str, Any] = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
    }
    if panel.is_stat:
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background" if len(steps) > 1 else "none"}
    elif len(steps) > 1:
        defaults["custom"] = {"thresholdsStyle": {"mode": "dashed"}}
    targets = [
        {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend or "__auto"}
        for number, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "type": _kind(panel),
        "title": panel.title,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets,
    }


def _annotation(alerts: tuple[str, ...]) -> dict[str, Any]:
    """Return the annotation that marks when the dashboard's alerts fired."""
    return {
        "name": "Alerts",
        "datasource": _DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": f'ALERTS{{alertstate="firing", alertname=~"{"|".join(alerts)}"}}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{job}} {{instance}}",
    }


def main() -> None:
    """Write one file per dashboard and remove other files."""
    for stale in FOLDER.glob("*.json"):
        stale.unlink()
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard_to_json(dashboard), indent=2, ensure_ascii=False)
        (FOLDER / f"{dashboard.name}.json").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
