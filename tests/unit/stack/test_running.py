"""Registry of running systems: entries that another user or a killed process could have left are not trusted."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import running
from stack.running import NotFoundError, find_system, list_systems, registered


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("stack.running.tempfile.gettempdir", lambda: str(tmp_path))
    return tmp_path / f"wallet-running-{os.getuid()}"


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """Data folder of a system that runs, as far as its lock shows."""
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def test_registered_system_is_found(registry: Path, data: Path) -> None:
    with registered(data, 8000):
        assert (find_system().data, find_system().port, find_system().pid) == (data, 8000, os.getpid())
    assert list_systems() == []


def test_folder_that_others_can_write_is_neither_read_nor_written(registry: Path, data: Path) -> None:
    registry.mkdir()
    registry.chmod(0o777)
    (registry / "planted").write_text(json.dumps({"data": str(data), "port": 8000, "pid": 1}))
    assert list_systems() == []
    with registered(data, 8000):
        assert [each.name for each in registry.iterdir()] == ["planted"]


def test_folder_of_another_user_is_not_read(registry: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.mkdir(mode=0o700)
    (registry / "planted").write_text(json.dumps({"data": str(data), "port": 8000, "pid": 1}))
    assert [each.pid for each in list_systems()] == [1]
    own = os.getuid()
    monkeypatch.setattr(running, "_folder", lambda: registry)
    monkeypatch.setattr("stack.running.os.getuid", lambda: own + 1)
    assert list_systems() == []


def test_link_in_place_of_the_folder_is_not_followed(registry: Path, data: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    registry.symlink_to(target)
    with registered(data, 8000):
        assert list(target.iterdir()) == []


@pytest.mark.parametrize("pid", [0, -1])
def test_entry_without_a_process_is_ignored(registry: Path, data: Path, pid: int) -> None:
    registry.mkdir(mode=0o700)
    (registry / "entry").write_text(json.dumps({"data": str(data), "port": 8000, "pid": pid}))
    assert list_systems() == []


@pytest.mark.parametrize("content", ["", "0", "x"])
def test_lock_without_a_process_is_an_error(registry: Path, data: Path, content: str) -> None:
    (data / "lock").write_text(content)
    with pytest.raises(NotFoundError, match="try again"):
        find_system(data, 8000)


def test_unregistered_system_is_found_by_its_data_folder_and_port(registry: Path, data: Path) -> None:
    assert find_system(data, 8000).pid == 4711
