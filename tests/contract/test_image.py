"""Content and health check of the image, tested without a container engine."""

import json
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from fastapi import FastAPI

from kit.http.admin import add_health_routes
from kit.http.server import http_server
from stack.ports import HOST, free_ports
from stack.process import ROOT, Child, Command, Process, StartError
from tests.tools import skip_without_tool

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def packages() -> list[str]:
    """Return the packages of the wheel."""
    project = (ROOT / "pyproject.toml").read_text()
    found = re.search(r"^\[tool\.setuptools\.packages\.find\]\ninclude = (\[.*\])$", project, re.MULTILINE)
    assert found
    return [name.removesuffix("*") for name in json.loads(found[1])]


@pytest.mark.slow
def test_wheel_has_every_file_of_its_packages(tmp_path: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *packages()], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in (*tracked, "pyproject.toml", "README.md", "LICENSE"):
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", "."]
    built = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    if built.returncode:
        skip_without_tool(f"no wheel can be built: {built.stderr[-500:]}")
    (wheel,) = tmp_path.glob("dist/*.whl")
    assert {name for name in tracked if Path(name).name[0] != "."} <= set(ZipFile(wheel).namelist())


def test_build_context_has_packages_and_build_files_only() -> None:
    included = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert included == {*packages(), "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}


@pytest.mark.parametrize("is_ready", [True, False])
async def test_health_check_follows_readiness(is_ready: bool) -> None:
    found = re.search(r"^HEALTHCHECK [^[]*CMD \\\n +(\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found
    python, *arguments = json.loads(found[1])
    assert python == "python"

    async def check() -> None:
        if not is_ready:
            raise OSError

    async def command() -> Command:
        return Command([sys.executable, *arguments], {"HEALTH_URL": f"http://{address}/health/ready"})

    app, address = FastAPI(), f"{HOST}:{free_ports(1)[0]}"
    add_health_routes(app, {"database": check})
    health = Child(Process(name="health", command=command))
    async with http_server(app, address):
        if is_ready:
            await health.start()
        else:
            with pytest.raises(StartError):
                await health.start()
