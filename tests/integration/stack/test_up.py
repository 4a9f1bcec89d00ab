import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stack.engines.cluster import open_cluster
from stack.ports import PortError, Ports, check_free
from stack.system import lock_data_folder
from tests.integration.stack.fake_stack import is_running

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("fake_stack.py")
ROOT = Path(__file__).parents[3]


class Terminal:
    """`make up` with fake services, in a separate session, as if a user had started it in a terminal.

    Attributes:
        text: output that has been read.
    """

    def __init__(self, data: Path, port: int, *more: str) -> None:
        self.data = data
        self.ports = Ports.derive(port)
        self.text = ""
        with default_hangup():
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(port), str(data), *more],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    def read_until(self, pattern: str) -> None:
        """Read the output until the pattern matches. Without a match the test fails or times out."""
        assert self.process.stdout is not None
        while not re.search(pattern, self.text):
            line = self.process.stdout.readline()
            assert line, self.text
            self.text += line

    def wait(self) -> int:
        """Read the rest of the output, and return the exit code."""
        assert self.process.stdout is not None
        self.text += self.process.stdout.read()
        return self.process.wait()

    def until_up(self) -> dict[str, int]:
        self.read_until("The wallet is up")
        table = json.loads((self.data / "run.json").read_text())
        return {name: entry["pid"] for name, entry in table.items()}

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def default_hangup() -> Iterator[None]:
    """Start processes in the block with the default action for SIGHUP, even if `nohup` runs the tests."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, usual)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path / "data", unused_port())
    yield opened
    opened.close()


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[Terminal]:
    """`make up` with a fake service that ignores SIGTERM."""
    opened = Terminal(tmp_path / "data", unused_port(), "stubborn")
    yield opened
    opened.close()


def get_listen_ports(ports: Ports) -> dict[str, int]:
    """Return the ports that `fake_stack.py` listens on. The kernel may use the others for outgoing connections."""
    return {name: port for name, port in ports.items() if name in {"gateway", "bank_admin", "analytics_admin"}}


def unused_port() -> int:
    """Return a PORT from which `fake_stack.py` derives free ports."""
    for port in random.sample(range(2_000, 7_900), 100):  # below the ports that `free_ports` and the kernel assign
        try:
            check_free(get_listen_ports(Ports.derive(port)))
        except PortError:
            continue
        return port
    raise AssertionError("no free ports")


class TestUp:
    def test_up_prints_addresses_and_a_first_request(self, terminal: Terminal) -> None:
        processes = terminal.until_up()
        port = terminal.ports.gateway
        assert set(processes) == {"bank", "analytics", "gateway"}
        for text in (
            f"http://127.0.0.1:{port}/graphql",
            f"make -s token DATA={terminal.data}",
            f"make logs DATA={terminal.data}",
            "MiB of memory",
        ):
            terminal.read_until(re.escape(text))
        assert "listening" not in terminal.text
        assert (terminal.data / "logs" / "bank.log").read_text() == "listening\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready") as response:
            assert response.status == 200

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_signal_stops_all_processes(self, terminal: Terminal, number: signal.Signals) -> None:
        processes = terminal.until_up()
        terminal.process.send_signal(number)
        assert terminal.wait() == 0
        assert not any(map(is_running, processes.values()))
        assert not (terminal.data / "run.json").exists()
        check_free(get_listen_ports(terminal.ports))

    def test_second_ctrl_c_kills_all_processes(self, stubborn: Terminal) -> None:
        processes = stubborn.until_up()
        stubborn.process.send_signal(signal.SIGINT)
        stubborn.read_until("press Ctrl-C again to kill")
        stubborn.process.send_signal(signal.SIGINT)
        assert stubborn.wait() == 0
        assert not any(map(is_running, processes.values()))

    def test_ctrl_c_during_start_stops_started_processes(self, terminal: Terminal) -> None:
        terminal.read_until("bank … ready")
        while terminal.process.poll() is None:
            terminal.process.send_signal(signal.SIGINT)  # also while the process exits
        assert terminal.wait() == 0
        check_free(get_listen_ports(terminal.ports))

    def test_kill_9_leaves_no_orphans_and_the_next_start_works(self, stubborn: Terminal) -> None:
        processes = stubborn.until_up()
        stubborn.process.kill()
        stubborn.process.wait()
        again = Terminal(stubborn.data, stubborn.ports.gateway)
        try:
            fresh = again.until_up()
            assert not any(map(is_running, processes.values()))
            assert set(fresh.values()).isdisjoint(processes.values())
        finally:
            again.close()

    def test_port_in_use_is_one_error_line(self, tmp_path: Path) -> None:
        port = unused_port()
        taken = Ports.derive(port).bank_admin
        with socket.create_server(("127.0.0.1", taken)):
            refused = Terminal(tmp_path / "data", port)
            assert refused.wait() == 2
            (line,) = refused.text.splitlines()
            assert line.startswith(f"error: port {taken} is in use, and bank (HTTP) needs it")
            assert "PORT=" in line
            refused.close()

    def test_second_stack_on_the_same_data_is_refused(self, terminal: Terminal) -> None:
        terminal.until_up()
        second = Terminal(terminal.data, unused_port())
        assert second.wait() == 2
        (line,) = second.text.splitlines()
        assert f"a stack already uses {terminal.data} (process {terminal.process.pid})" in line
        second.close()

    def test_second_stack_on_other_ports_and_data_starts(self, terminal: Terminal, tmp_path: Path) -> None:
        terminal.until_up()
        second = Terminal(tmp_path / "other", unused_port())
        second.until_up()
        second.close()
        assert second.process.returncode == 0
        assert terminal.process.poll() is None


def run_stack(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stack", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


class TestRunning:
    def test_down_stops_the_system_as_ctrl_c_does(self, terminal: Terminal) -> None:
        processes = terminal.until_up()
        stopped = run_stack("down", "--data", str(terminal.data))
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert terminal.wait() == 0
        assert not any(map(is_running, processes.values()))
        again = run_stack("down", "--data", str(terminal.data))
        assert again.returncode == 2
        assert again.stderr.startswith("error: no ")

    def test_port_of_another_system_is_refused_with_the_list_of_those_that_run(self, terminal: Terminal) -> None:
        terminal.until_up()
        refused = run_stack("open", "--data", str(terminal.data), "--port", str(terminal.ports.gateway + 1))
        assert refused.returncode == 2
        assert f"PORT={terminal.ports.gateway} DATA={terminal.data}" in refused.stderr

    def test_logs_of_an_unknown_process_are_refused_with_the_known_names(self, terminal: Terminal) -> None:
        terminal.until_up()
        refused = run_stack("logs", "--data", str(terminal.data), "--service", "ledger")
        assert (refused.returncode, refused.stderr) == (
            2,
            "error: there is no process 'ledger': choose one of analytics, bank, gateway\n",
        )


class TestClean:
    def clean(self, data: Path) -> subprocess.CompletedProcess[str]:
        return run_stack("clean", "--data", str(data))

    def test_folder_of_others_is_not_deleted(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert self.clean(tmp_path).returncode == 2
        assert (tmp_path / "file").exists()

    def test_clean_deletes_data_and_cluster(self, tmp_path: Path) -> None:
        with lock_data_folder(tmp_path / "data"):
            place = open_cluster(tmp_path / "data", ("postgres",)).data.parent
        assert place.exists()
        assert self.clean(tmp_path / "data").returncode == 0
        assert not place.exists()
        assert not (tmp_path / "data").exists()

    def test_clean_is_refused_while_a_stack_runs(self, terminal: Terminal) -> None:
        terminal.until_up()
        refused = self.clean(terminal.data)
        assert refused.returncode == 2
        assert "already uses" in refused.stderr
        assert (terminal.data / "run.json").exists()
