"""Load, and whoever asked for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.plan import BEGUN
from tests.integration.stack.fake_stack import is_running

pytestmark = pytest.mark.slow

LOADED = """
import asyncio, sys
from pathlib import Path
from loadtests.plan import Customer, Plan
from loadtests.run import _loaded

folder, nobody = Path(sys.argv[1]), "127.0.0.1:1"
customers = [Customer(name, name, "token", f"00000000-0000-4000-8000-00000000000{name}") for name in "01"]
plan = Plan(host=f"http://{nobody}", bank=nobody, users=1, rate=1, seconds=600, customers=customers)
plan.write(folder)
asyncio.run(_loaded(folder, plan, None))
"""


def locust_of(folder: Path) -> int | None:
    """The process that makes a run's load, by the folder that it was told."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"LOAD_FOLDER={folder}\0".encode() in (entry / "environ").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    return None


def test_load_does_not_outlive_who_asked_for_it(tmp_path: Path) -> None:
    runner = subprocess.Popen([sys.executable, "-c", LOADED, str(tmp_path)])
    deadline = time.monotonic() + 30
    while (locust := locust_of(tmp_path)) is None or not (tmp_path / BEGUN).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    try:
        while is_running(locust):
            assert time.monotonic() < deadline, "Locust goes on"
            time.sleep(0.01)
    finally:
        if is_running(locust):
            os.killpg(locust, signal.SIGKILL)
