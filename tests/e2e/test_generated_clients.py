"""REST clients that openapi-generator generates from the contract: they compile, and two of them make transfers."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from stack.process import ROOT
from tests.e2e.users import User
from tests.java import FAST_START, find_jars, find_tool
from tests.node import NODE_MODULES, script_command

pytestmark = pytest.mark.slow

CLIENTS: Final = ROOT / "tests" / "contract" / "clients"

GENERATORS: Final[dict[str, dict[str, str]]] = {
    "python": {"packageName": "wallet_client"},
    "typescript-fetch": {"importFileExtension": ".js"},
    "java": {"library": "native"},
    "go": {"packageName": "wallet"},
}
"""Options by generator."""


def run(*command: str | Path, **options: Any) -> str:
    """Run a command that must succeed, and return its output."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the generated clients, one subfolder for each generator."""
    folder = tmp_path_factory.mktemp("clients")
    only_code = dict.fromkeys(("apiDocs", "modelDocs", "apiTests", "modelTests"), "false")
    configs = []
    for name, options in GENERATORS.items():
        configs.append(folder / f"{name}.json")
        config = {
            "generatorName": name,
            "inputSpec": str(ROOT / "openapi" / "openapi.json"),
            "outputDir": str(folder / name),
            "additionalProperties": options,
            "globalProperties": only_code,
        }
        configs[-1].write_text(json.dumps(config))
    (jar,) = find_jars("openapi_generator").iterdir()
    run(find_tool("java"), *FAST_START, "-jar", jar, "batch", "--fail-fast", "-r", "1", *configs)
    return folder


async def transfer(alice: User, bob: User, *command: str, **options: Any) -> None:
    """Run a client that makes a transfer, and check its output."""
    request = {
        "url": str(alice.http.base_url).rstrip("/"),
        "token": alice.token,
        "sender": alice.account,
        "recipient": bob.account,
        "key": "generated",
    }
    output = await asyncio.to_thread(run, *command, input=json.dumps(request), **options)
    printed = json.loads(output)
    made = (await alice.transfer(bob.account, "1.25", key="generated")).json()
    assert printed == {
        "transfer": made["id"],
        "replay": made["id"],
        "balance": "998.75",
        "version": 1,
        "hasNewer": False,
        "refusal": "INSUFFICIENT_FUNDS",
    }


async def test_generated_python_client_makes_a_transfer(clients: Path, alice: User, bob: User) -> None:
    path = {**os.environ, "PYTHONPATH": str(clients / "python")}
    await transfer(alice, bob, sys.executable, str(CLIENTS / "transfer.py"), env=path)


async def test_generated_typescript_client_makes_a_transfer(
    clients: Path, alice: User, bob: User, tmp_path: Path
) -> None:
    compiler = script_command("node_modules/typescript/bin/tsc", "--project", str(tmp_path), package="typescript")
    await asyncio.to_thread(shutil.copytree, CLIENTS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "client").symlink_to(clients / "typescript-fetch")
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    await asyncio.to_thread(run, *compiler)
    await transfer(alice, bob, compiler[0], str(tmp_path / "transfer.js"))


def test_generated_java_client_compiles(clients: Path, tmp_path: Path) -> None:
    sources = sorted((clients / "java" / "src" / "main").rglob("*.java"))
    options = ("-proc:none", "-nowarn", "-d", tmp_path, "-cp", f"{find_jars('java_client')}/*")
    run(find_tool("javac"), *(f"-J{each}" for each in FAST_START), *options, *sources)
    assert (tmp_path / "org" / "openapitools" / "client" / "api" / "TransfersApi.class").exists()


def test_generated_go_client_compiles(clients: Path) -> None:
    offline = {**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    run(find_tool("go"), "build", ".", cwd=clients / "go", env=offline)
