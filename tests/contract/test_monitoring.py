"""Alerts, dashboards and runbook agree with the metrics, the code and each other."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml
from prometheus_client import generate_latest

from cli.main import app
from stack.ports import Ports
from tests.promql import ROOT, Query, known_metrics
from tests.tools import skip_without_tool

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "provisioning" / "dashboards").glob("*.json"))
RUNBOOK = (ROOT / "docs" / "how-to" / "runbook.md").read_text()

RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: {"job", "instance"} for rule in RULES if "record" in rule}
DEPRECATED = {
    "wallet_analytics_integrity_behind": "wallet_analytics_integrity_pending",
    "wallet_bank_commands_shed_total": "wallet_bank_commands_rejected_total",
    "wallet_bank_commits_lost_total": "wallet_bank_commit_outcomes_unknown_total",
    "wallet_bank_outbox_leads": "wallet_bank_outbox_is_leader",
    "wallet_card_driven": "wallet_card_top_ups_in_progress",
    "wallet_card_integrity_behind": "wallet_card_integrity_pending",
    "wallet_card_taken_over_total": "wallet_card_top_ups_resumed_total",
    "wallet_card_watchers": "wallet_card_top_up_streams",
    "wallet_identity_hashes_shed_total": "wallet_identity_hashes_rejected_total",
    "wallet_identity_sign_ins_total": "wallet_identity_logins_total",
}
"""New names of renamed metrics, by their old names. Both names are exposed for one more release."""
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def promtool(*arguments: str | Path, stdin: str = "") -> None:
    program = shutil.which("promtool")
    if program is None:
        skip_without_tool("there is no promtool")
    argv = [program, *arguments]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr


def all_panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from all_panels(panel.get("panels", []))


def targets() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each query of the dashboards with its place."""
    for file in DASHBOARDS:
        for panel in all_panels(json.loads(file.read_text())["panels"]):
            for target in panel.get("targets", []):
                yield f"{file.stem}: {panel['title']}, {target['legendFormat']}", target


TARGETS = dict(targets())


class TestAlerts:
    def test_prometheus_configuration_is_valid(self) -> None:
        promtool("check", "rules", "--lint-fatal", "alerts.yml")
        promtool("check", "config", "prometheus.yml")

    @pytest.mark.slow
    def test_alert_rules_pass_their_tests(self) -> None:
        promtool("test", "rules", "alerts_test.yml")

    @pytest.mark.parametrize("alert", ALERTS)
    def test_each_alert_has_a_firing_and_a_quiet_test(self, alert: str) -> None:
        tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
        checks = [check for test in tests for check in test["alert_rule_test"] if check["alertname"] == alert]
        assert {bool(check["exp_alerts"]) for check in checks} == {True, False}

    @pytest.mark.parametrize("alert", ALERTS)
    def test_alert_has_summary_severity_and_runbook(self, alert: str) -> None:
        rule = ALERTS[alert]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/how-to/runbook.md#{alert.lower()}"

    @pytest.mark.parametrize("rule", RULES, ids=[rule.get("alert") or rule["record"] for rule in RULES])
    def test_query_uses_existing_metrics_and_labels(self, rule: dict[str, str]) -> None:
        assert not Query.parse(rule["expr"]).faults(known_metrics() | RECORDED)


def test_metric_names_follow_prometheus_conventions() -> None:
    assert known_metrics()  # imports the modules that register the metrics
    promtool("check", "metrics", stdin=generate_latest().decode())


def test_renamed_metrics_are_exposed_under_both_names() -> None:
    assert known_metrics()
    found = re.findall(r"^# HELP (\w+) Deprecated: use (\w+)\.$", generate_latest().decode(), re.MULTILINE)
    assert {old: new for old, new in found if not old.endswith("_created")} == DEPRECATED
    assert not set(DEPRECATED.values()) - known_metrics().keys()


def test_no_alert_or_dashboard_uses_a_deprecated_metric() -> None:
    queries = [rule["expr"] for rule in RULES] + [target["expr"] for target in TARGETS.values()]
    assert not {name for query in queries for name in Query.parse(query).metrics.keys() & DEPRECATED.keys()}


def test_every_admin_port_is_scraped() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {job["job_name"]: each["port"] for job in jobs for each in job["dns_sd_configs"]}
    assert scraped == {name.removesuffix("_admin"): port for name, port in Ports().items() if name.endswith("_admin")}
    assert all(each["names"] == [job["job_name"]] for job in jobs for each in job["dns_sd_configs"])


class TestDashboards:
    def test_there_are_five_dashboards(self) -> None:
        assert [file.stem for file in DASHBOARDS] == ["gateway", "ledger", "pipeline", "system", "top-ups"]

    @pytest.mark.parametrize("place", TARGETS)
    def test_query_uses_existing_metrics_and_labels(self, place: str) -> None:
        target = TARGETS[place]
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert not Query.parse(target["expr"]).faults(known_metrics() | RECORDED, shown)

    def test_queries_are_valid_promql(self, tmp_path: Path) -> None:
        queries = [target["expr"].replace("$__rate_interval", "1m") for target in TARGETS.values()]
        rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
        file = tmp_path / "queries.yml"
        file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
        promtool("check", "rules", file)

    def test_every_alert_is_on_a_dashboard_with_its_runbook(self) -> None:
        texts = [
            panel["options"]["content"]
            for file in DASHBOARDS
            for panel in all_panels(json.loads(file.read_text())["panels"])
            if panel["type"] == "text"
        ]
        shown = {alert for text in texts for alert in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
        assert shown == ALERTS.keys()

    @pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
    def test_panels_do_not_overlap(self, file: Path) -> None:
        taken: set[tuple[int, int]] = set()
        dashboard = json.loads(file.read_text())
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["w"] >= 4
            assert at["x"] + at["w"] <= 24
            assert not cells & taken
            taken |= cells
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)


class TestRunbook:
    def test_runbook_has_one_section_per_alert(self) -> None:
        assert SECTIONS.keys() == ALERTS.keys()

    @pytest.mark.parametrize("alert", SECTIONS)
    def test_section_has_effect_diagnosis_action_and_end(self, alert: str) -> None:
        parts = [SECTIONS[alert].find(f"**{part}**") for part in ("Users", "Look", "Do", "Over")]
        assert -1 not in parts
        assert parts == sorted(parts)

    @pytest.mark.parametrize("line", re.findall(r"^(?:wallet|make) [^#\n]*", RUNBOOK, re.MULTILINE))
    def test_runbook_commands_exist(self, line: str) -> None:
        program, *arguments = shlex.split(line)
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            return
        command = typer.main.get_command(app)
        while isinstance(command, click.Group):
            command = command.commands[arguments.pop(0)]
        command.make_context("wallet", arguments)

    @pytest.mark.parametrize("event", sorted(set(re.findall(r"\blog\s+(?:has\s+)?`([^`]+)`", RUNBOOK))))
    def test_quoted_log_events_exist(self, event: str) -> None:
        sources = [file for part in ("kit", "gateway", "subgraphs") for file in (ROOT / part).rglob("*.py")]
        assert any(f'"{event}"' in file.read_text() for file in sources)

    def test_named_dashboards_and_linked_sections_exist(self) -> None:
        titles = {json.loads(file.read_text())["title"].removeprefix("Wallet · ") for file in DASHBOARDS}
        named = set(re.findall(r"\*([A-Z][\w-]+)\*(?!\*)", RUNBOOK.replace("**", "")))
        assert named <= titles
        assert set(re.findall(r"\(#(\w+)\)", RUNBOOK)) <= {alert.lower() for alert in ALERTS}


class TestQueryChecker:
    """Tests of `promql.Query`, with which the tests above check the queries."""

    KNOWN = {"a_total": {"job", "code"}, "b": {"job"}}  # noqa: RUF012  constant

    @pytest.mark.parametrize(
        ("query", "fault"),
        [
            ("sum(rate(a[5m]))", "unknown metric: a"),
            ("b > 0 or bb", "unknown metric: bb"),
            ("rate(a_total{cod='x'}[5m])".replace("'", '"'), "a_total has no label cod"),
            ("sum by (le) (a_total)", "no metric has the label le to group by"),
            ("sum by (job) (a_total)", "the result has no label code to show"),
            ("b", "the result has no label code to show"),
        ],
    )
    def test_unknown_metric_or_label_is_found(self, query: str, fault: str) -> None:
        assert Query.parse(query).faults(self.KNOWN, {"code"}).count(fault) == 1

    @pytest.mark.parametrize(
        "query",
        [
            'sum by (code) (rate(a_total{code=~"x|y", job!="b c"}[$__rate_interval])) / 2 > 0.5 * 1e3',
            "a_total unless a_total offset 15m",
            "histogram_quantile(0.99, sum by (job, code) (a_total)) and time() - max(b) > 600",
        ],
    )
    def test_valid_query_has_no_faults(self, query: str) -> None:
        assert not Query.parse(query).faults(self.KNOWN, {"code"})
