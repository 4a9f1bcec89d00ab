"""The OpenAPI documents pass Spectral, break no client of the last release, and have no YAML aliases."""

import json
import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest
import yaml

from stack.process import ROOT
from tests.node import script_command
from tests.tools import skip_without_tool

CONTRACTS: Final = [ROOT / "openapi" / name for name in ("openapi.yaml", "acquirer.yaml")]
REST, _ = CONTRACTS

RELEASED: Final = ROOT / "openapi" / "released"
"""Folder with the REST contract of the last release, and with the changes since then that break no client."""


def lint(files: list[Path]) -> dict[str, set[str]]:
    """Return the rules that Spectral finds violated, of all severities, by file name."""
    command = script_command(
        *("node_modules/@stoplight/spectral-cli/dist/index.js", "lint", "--format", "json", "--quiet"),
        *("--ruleset", str(ROOT / "tests" / "contract" / "node" / ".spectral.yaml"), *map(str, files)),
        package="@stoplight/spectral-cli",
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    findings = defaultdict(set)
    for each in json.loads(done.stdout):
        findings[Path(each["source"]).name].add(each["code"])
    return findings


def breaking_changes(contract: Path) -> list[str]:
    """Return the ids of the changes since the last release that break clients, as oasdiff finds them."""
    folders = os.pathsep.join((os.environ["PATH"], str(Path.home() / "go" / "bin")))
    oasdiff = shutil.which("oasdiff", path=folders) or skip_without_tool("there is no oasdiff")
    command = (oasdiff, "breaking", "--format", "json", "--err-ignore", str(RELEASED / "compatible.txt"))
    done = subprocess.run(
        (*command, str(RELEASED / "openapi.yaml"), str(contract)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [change["id"] for change in json.loads(done.stdout or "[]") if change["level"] == _ERROR]


_ERROR: Final = 3
"""Level of a change that breaks clients. Changed patterns are warnings: oasdiff cannot compare them."""


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda file: file.name)
def test_contract_has_no_yaml_aliases(contract: Path) -> None:
    """Generators of clients do not read aliases."""
    tokens = yaml.scan(contract.read_text())
    assert [token.value for token in tokens if isinstance(token, yaml.AliasToken)] == []


@pytest.mark.slow
def test_spectral_has_no_findings(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"  # if Spectral never reported anything, the test would prove nothing
    wrong.write_text(REST.read_text().replace("operationId: getMe", "x-id: getMe"))
    assert lint([*CONTRACTS, wrong]) == {"wrong.yaml": {"operation-operationId"}}


@pytest.mark.slow
class TestReleasedClients:
    def test_contract_breaks_no_client_of_the_last_release(self) -> None:
        assert breaking_changes(REST) == []

    def test_removed_property_is_found(self, tmp_path: Path) -> None:
        """If oasdiff never reported anything, the test above would prove nothing."""
        wrong = tmp_path / "openapi.yaml"
        wrong.write_text(REST.read_text().replace("lastFour", "lastDigits"))
        assert "response-required-property-removed" in breaking_changes(wrong)
