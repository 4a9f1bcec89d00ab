"""Sink of log lines: pipes without a reader, full pipes, full disks, threads and forks."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.telemetry.log_sink import LogSink

FLUSH_SECONDS = 30.0  # a bound for tests that must not hang; a flush takes milliseconds


def describe_loss(lost: int) -> bytes:
    return b"lost %d" % lost


class PipeSink:
    """Log sink that writes to a pipe, and the reader of the pipe."""

    def __init__(self, limit_bytes: int = 10_000, *, blocking: bool = True) -> None:
        self.reader, writer = os.pipe()
        os.set_blocking(writer, blocking)
        self.sink = LogSink(writer, describe_loss, limit_bytes=limit_bytes)

    def read_lines(self) -> list[bytes]:
        """Close the sink while the pipe is read, and return all lines."""
        chunks: list[bytes] = []

        def read() -> None:
            while chunk := os.read(self.reader, 65_536):
                chunks.append(chunk)

        thread = threading.Thread(target=read)
        thread.start()
        self.sink.close(FLUSH_SECONDS)
        thread.join(FLUSH_SECONDS)
        os.close(self.reader)
        return b"".join(chunks).splitlines()


def run(program: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a Python program that writes log lines."""
    return subprocess.run([sys.executable, "-c", program], check=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def test_lines_of_each_thread_keep_their_order() -> None:
    pipe = PipeSink(limit_bytes=2**20)

    def write(name: int) -> None:
        for number in range(500):
            pipe.sink.write(b"%d %d" % (name, number))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [tuple(map(int, line.split())) for line in pipe.read_lines()]
    assert len(lines) == 2_000
    assert all([each for name, each in lines if name == wanted] == list(range(500)) for wanted in range(4))
    assert pipe.sink.lost == 0


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_above_the_limit_are_lost_and_counted_while_nobody_reads(blocking: bool) -> None:
    pipe = PipeSink(blocking=blocking)
    written = 3_000  # 300 KB: more than the pipe, the queue and the thread hold
    for number in range(written):
        pipe.sink.write(b"%099d" % number)
    assert 0 < pipe.sink.lost < written
    following = 0
    for line in pipe.read_lines():
        if line.startswith(b"lost "):
            following += int(line.removeprefix(b"lost "))
        else:
            assert int(line) == following
            following += 1
    assert following == written


def test_log_resumes_when_a_new_reader_opens_the_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = LogSink(os.open(path, os.O_WRONLY), describe_loss, limit_bytes=50)
    os.close(reader)
    for number in range(100):
        sink.write(b"%09d" % number)
    assert sink.lost
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert sink.flush(FLUSH_SECONDS)
    sink.write(b"later")
    sink.close(FLUSH_SECONDS)
    lines = os.read(reader, 65_536).splitlines()
    os.close(reader)
    assert lines[0] == b"%09d" % 0
    assert lines.pop() == b"later"
    # The thread may take the queue several times, so there may be several notes of lost lines.
    lost = [int(line.removeprefix(b"lost ")) for line in lines if line.startswith(b"lost ")]
    written = [int(line) for line in lines if not line.startswith(b"lost ")]
    assert sum(lost) == sink.lost
    assert len(written) + sink.lost == 100
    assert written == sorted(set(written))


FULL_DISK = """
import os, resource, signal, sys
from kit.telemetry.log_sink import LogSink

path = sys.argv[1]
# A file that may not grow fails like one on a full disk: first by a partial write, then by an error.
resource.setrlimit(resource.RLIMIT_FSIZE, (1_005, resource.RLIM_INFINITY))
sink = LogSink(os.open(path, os.O_WRONLY | os.O_CREAT), lambda lost: b"lost %d" % lost, limit_bytes=2_000)
while not sink.lost:
    sink.write(b"%09d" % 1)
assert not sink.flush(0.0)
assert os.path.getsize(path) <= 1_005
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert sink.flush(30.0)
sink.write(b"later")
sink.close(30.0)
"""


def test_log_resumes_with_whole_lines_when_the_disk_has_space_again(tmp_path: Path) -> None:
    file = tmp_path / "log"
    run(FULL_DISK.replace("sys.argv[1]", repr(str(file))))
    lines = file.read_bytes().splitlines()
    assert set(lines[:-2]) == {b"%09d" % 1}
    assert lines[-2].startswith(b"lost ")
    assert lines[-1] == b"later"


FORK = """
import os
from kit.telemetry.log_sink import LogSink

sink = LogSink(os.dup(2), lambda lost: b"lost")
sink.write(b"parent, before")
child = os.fork()
sink.write(b"child" if child == 0 else b"parent, after")
sink.close(30.0)
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_forked_child_writes_its_own_lines_only() -> None:
    done = run(FORK, stderr=subprocess.PIPE)
    assert sorted(done.stderr.splitlines()) == [b"child", b"parent, after", b"parent, before"]


EXIT = """
import atexit, os
from kit.telemetry.log_sink import LogSink, flush_logs

sink = LogSink(os.dup(2), lambda lost: b"lost")
atexit.register(flush_logs)
for number in range({lines}):
    sink.write(b"%0999d" % number)
"""


def test_last_lines_are_written_when_the_process_exits() -> None:
    done = run(EXIT.format(lines=1_000), stderr=subprocess.PIPE)
    assert len(done.stderr.splitlines()) == 1_000


@pytest.fixture
def unread_pipe() -> Iterator[int]:
    """Write end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    yield writer
    os.close(reader)
    os.close(writer)


def test_process_exits_although_nobody_reads_its_log(unread_pipe: int) -> None:
    assert run(EXIT.format(lines=1_000), stderr=unread_pipe).returncode == 0


def test_lines_after_the_close_are_dropped_and_not_written_to_another_file() -> None:
    pipe = PipeSink()
    pipe.sink.write(b"first")
    assert pipe.read_lines() == [b"first"]
    pipe.sink.write(b"late")
    pipe.sink.close(FLUSH_SECONDS)
    assert pipe.sink.lost == 1
