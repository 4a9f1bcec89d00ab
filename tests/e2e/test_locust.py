"""Locust as its users know it: the locustfile works without our own command, and another command checks the run."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from loadtests.target import Target
from stack.ports import free_ports
from stack.process import ROOT
from stack.system import System
from tests.waiting import until

pytestmark = pytest.mark.slow

LOCUST = (sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"))


async def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with the packages of the repository."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


async def test_headless_run_with_workers_is_sound(system: System, tmp_path: Path) -> None:
    load = ("--headless", "-H", system.url, "--users", "4", "--run-time", "3s", "--processes", "2")
    plan = ("--scenario", "rest,graphql", "--accounts", "zipf", "--customers", "4", "--seed", "7")
    loaded = await run(tmp_path, *LOCUST, *load, *plan)
    assert loaded.returncode == 0, loaded.stderr
    ledger = Target.embedded(system.ports, system.data).ledger
    checked = await run(tmp_path, sys.executable, "-m", "loadtests.check", "--ledger", ledger)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.startswith("rest+graphql, 4 users: ")
    assert "sound: no violations" in checked.stdout


async def test_web_form_has_the_options_and_starts_the_selected_users(system: System, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        *(*LOCUST, "--web-host", "127.0.0.1", "--web-port", str(port)),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as web:

            async def is_listening() -> bool:
                try:
                    return (await web.get("/")).status_code == httpx.codes.OK
                except httpx.TransportError:
                    return False

            async def has_responses() -> bool:
                names = {each["name"] for each in (await web.get("/stats/requests")).json()["stats"]}
                return bool({"balance", "operations", "overview"} & names)

            await until(is_listening, within=30)
            form = (await web.get("/")).text
            for option in ("scenario", "accounts", "customers", "rate", "shape", "seed", "bank"):
                assert f'"{option}"' in form
            values = {"user_count": "2", "spawn_rate": "2", "host": system.url, "customers": "2"}
            wrong = (await web.post("/swarm", data=values | {"scenario": "soap"})).json()
            assert (wrong["success"], "unknown scenario: soap" in wrong["message"]) == (False, True)
            assert (await web.post("/swarm", data=values | {"scenario": "reads"})).json()["success"]
            await until(has_responses, within=30)
            await web.get("/stop")
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--list"], 0, "RestTransfers"),
        (["--headless"], 2, "name the URL of the gateway with -H"),
    ],
)
async def test_locustfile_works_without_a_plan(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    done = await run(tmp_path, *LOCUST, *arguments)
    assert (done.returncode, message in done.stdout + done.stderr) == (code, True)
