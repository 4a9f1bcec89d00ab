"""Lifetime of the Locust process."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.plan import STARTED
from tests.integration.stack.fake_stack import is_running

pytestmark = pytest.mark.slow

SCRIPT = """
import asyncio, sys
from pathlib import Path
from loadtests.interrupts import Interrupts
from loadtests.plan import Customer, Plan
from loadtests.run import _run_locust

folder, closed = Path(sys.argv[1]), "127.0.0.1:1"
customers = [Customer(name, name, "token", f"00000000-0000-4000-8000-00000000000{name}") for name in "01"]
plan = Plan(host=f"http://{closed}", bank=closed, users=1, rate=1, seconds=600, customers=customers)
plan.write(folder)
asyncio.run(_run_locust(folder, plan, None, Interrupts()))
"""


def find_locust(folder: Path) -> int | None:
    """Return the id of the Locust process of a run, found by the folder in its environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"LOAD_FOLDER={folder}\0".encode() in (entry / "environ").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    return None


def test_locust_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    runner = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)])
    while (locust := find_locust(tmp_path)) is None or not (tmp_path / STARTED).exists():
        assert runner.poll() is None
        time.sleep(0.01)
    ended = os.pidfd_open(locust)  # readable when the process has ended
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    try:
        select.select([ended], [], [])  # if Locust does not end, the test times out
    finally:
        os.close(ended)
        if is_running(locust):
            os.killpg(locust, signal.SIGKILL)
