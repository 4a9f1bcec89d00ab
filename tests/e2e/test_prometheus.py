"""Prometheus scrapes the whole system; all alerts and dashboard queries are evaluated."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Command, Process
from stack.system import System
from tests.e2e.users import User
from tests.promql import ROOT
from tests.tools import skip_without_tool
from tests.waiting import until

DEPLOY = ROOT / "deploy"


@asynccontextmanager
async def prometheus(folder: Path, admins: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Run Prometheus with the deployed configuration, except for host names and the interval; yield an API client."""
    program = shutil.which("prometheus")
    if program is None:
        skip_without_tool("there is no prometheus")
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "250ms", "evaluation_interval": "250ms"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / "alerts.yml")]
    config["scrape_configs"] = [
        {"job_name": job["job_name"], "static_configs": [{"targets": [admins[job["job_name"]]]}]}
        for job in config["scrape_configs"]
        if job["job_name"] in admins
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    argv = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
    ]

    async def command() -> Command:
        return Command(argv, {})

    async with (
        Child(Process(name="prometheus", command=command, ready=probes.http(f"{url}/-/ready"))),
        httpx.AsyncClient(base_url=f"{url}/api/v1", trust_env=False) as http,
    ):
        yield http


@pytest.mark.slow
async def test_alerts_and_dashboard_queries_are_evaluated_without_errors(
    system: System, alice: User, bob: User, tmp_path: Path
) -> None:
    children = system.supervisor.children
    admins = {
        name: child.process.urls["admin"].removeprefix("http://")
        for name, child in children.items()
        if "admin" in child.process.urls
    }
    async with prometheus(tmp_path, admins) as http:

        async def run_query(query: str) -> list[dict[str, Any]]:
            response = (await http.get("/query", params={"query": query})).json()
            assert response["status"] == "success", (query, response)
            found: list[dict[str, Any]] = response["data"]["result"]
            return found

        async def are_up() -> bool:
            return {each["metric"]["job"] for each in await run_query("up == 1")} == admins.keys()

        async def are_evaluated() -> bool:
            groups = (await http.get("/rules")).json()["data"]["groups"]
            healths = {rule["health"] for group in groups for rule in group["rules"]}
            assert "err" not in healths
            return healths == {"ok"}

        transfers = 'wallet_gateway_request_duration_seconds_count{route="/accounts/{accountId}/transfers"}'
        await until(are_up)
        assert (await alice.transfer(bob.account, "1.00")).is_success
        await until(lambda: run_query(transfers))
        assert (await alice.transfer(bob.account, "1.00")).is_success  # a rate needs two samples
        await until(lambda: run_query(f"rate({transfers}[10s]) > 0"))
        await until(are_evaluated)
        for file in (DEPLOY / "grafana" / "provisioning" / "dashboards").glob("*.json"):
            for panel in json.loads(file.read_text())["panels"]:
                for target in panel.get("targets", []):
                    await run_query(target["expr"].replace("$__rate_interval", "10s"))
