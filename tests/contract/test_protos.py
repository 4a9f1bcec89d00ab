"""The protos pass buf's lint rules, and break no client of the last release."""

import shutil
import subprocess
from pathlib import Path

import pytest

from stack.process import ROOT
from tests.node import NODE_MODULES
from tests.tools import skip_without_tool


def run_buf(*arguments: str, folder: Path = ROOT) -> list[str]:
    """Run buf in a folder with `buf.yaml`, and return its findings."""
    buf = NODE_MODULES / ".bin" / "buf"
    if not buf.exists() or shutil.which("node") is None:
        skip_without_tool("there is no buf")
    done = subprocess.run([buf, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


def copy_protos(folder: Path, old: str, new: str) -> Path:
    """Return a copy of the contract in which a text of the bank's proto is replaced."""
    shutil.copy(ROOT / "buf.yaml", folder)
    shutil.copytree(ROOT / "protos", folder / "protos", ignore=shutil.ignore_patterns("*.py", "*.pyi", "__pycache__"))
    bank = folder / "protos" / "wallet" / "bank" / "v1" / "bank.proto"
    text = bank.read_text()
    assert old in text
    bank.write_text(text.replace(old, new, 1))
    return folder


class TestLint:
    def test_protos_follow_the_rules(self) -> None:
        assert run_buf("lint") == []

    def test_field_without_a_comment_is_found(self, tmp_path: Path) -> None:
        uncommented = copy_protos(tmp_path, "  // Id of the account, a UUID.\n", "")
        (finding,) = run_buf("lint", folder=uncommented)
        assert 'Field "id" should have a non-empty comment' in finding


class TestReleasedClients:
    AGAINST = ("breaking", "--against", "protos/released.binpb")

    def test_protos_break_no_client_of_the_last_release(self) -> None:
        assert run_buf(*self.AGAINST) == []

    @pytest.mark.parametrize(
        ("old", "new"), [("int64 version = 4;", "int32 version = 4;"), ("rpc GetBalance", "rpc Get")]
    )
    def test_breaking_change_is_found(self, tmp_path: Path, old: str, new: str) -> None:
        assert run_buf(*self.AGAINST, folder=copy_protos(tmp_path, old, new))
