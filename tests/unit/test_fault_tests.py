"""The fault tests can be set up. CI runs none of them, so a renamed fixture would break them unnoticed."""

import subprocess
import sys

import pytest

from stack.process import ROOT


@pytest.mark.slow
def test_every_fixture_of_the_fault_tests_exists() -> None:
    command = (
        sys.executable,
        "-m",
        "pytest",
        "tests/faults",
        "-m",
        "faults",
        "--setup-plan",
        "-q",
        "-p",
        "no:cacheprovider",
    )
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert planned.returncode == 0, planned.stdout
