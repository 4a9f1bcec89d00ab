"""Sink of log lines: a bounded queue in memory, and one thread that writes it to a descriptor.

A caller never waits for the reader of the log and never gets an error. Lines that do not fit into the queue are dropped
and counted. The thread repeats a failed write, so the log resumes without a restart when the reader reads again or the
disk has space again; then one line says how many lines were lost.
"""

import contextlib
import os
import queue
import select
import signal
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

_LIMIT_BYTES: Final = 4 * 2**20
"""Size of the queue: several thousand lines. The lines that are being written may take as much memory again."""
_WRITE_BYTES: Final = 64 * 1024
_INTERVAL_SECONDS: Final = 0.1
"""Time between two writes, in which lines are collected: under load, one write carries many lines. Each write makes
the thread compete with the event loop for the interpreter lock; at 0.01 seconds, this cost 5 % of the gateway's
throughput. The first line after an interval without lines is written at once.
"""
_FIRST_RETRY_SECONDS: Final = 0.05
_LONGEST_RETRY_SECONDS: Final = 1.0
_EXIT_TIMEOUT_SECONDS: Final = 1.0

_sinks: Final["weakref.WeakSet[LogSink]"] = weakref.WeakSet()


def flush_logs() -> None:
    """Wait until all sinks of this process have written their lines, at most one second. Call it before `os._exit`."""
    deadline = time.monotonic() + _EXIT_TIMEOUT_SECONDS
    for sink in list(_sinks):
        sink.flush(deadline - time.monotonic())


class LogSink:
    """Writes lines to a descriptor, in order, without blocking the caller. Safe in threads, and in a forked child.

    Attributes:
        lost: number of lines that were dropped since the start because the queue was full.
    """

    def __init__(
        self, descriptor: int, describe_loss: Callable[[int], bytes], *, limit_bytes: int = _LIMIT_BYTES
    ) -> None:
        """Args:
        descriptor: open file descriptor, which the sink owns and closes; its flags are not changed.
        describe_loss: returns the line that says how many lines were lost. It must not raise.
        limit_bytes: size of the queue.
        """
        self.lost = 0
        self._descriptor = descriptor
        self._describe_loss = describe_loss
        self._limit_bytes = limit_bytes
        self._is_closed = False
        self._reset()
        _sinks.add(self)
        reset = weakref.WeakMethod(self._reset)
        os.register_at_fork(after_in_child=lambda: (each := reset()) and each())

    def _reset(self) -> None:
        """Start with an empty queue and no thread.

        A forked child does so too, because the parent writes the queued lines.
        """
        self._lock = threading.RLock()  # reentrant, because the garbage collector may call a finalizer that logs
        self._lines: list[bytes] = []
        self._bytes = 0
        self._lost_since_taken = 0
        self._thread: threading.Thread | None = None
        self._is_idle = True
        self._is_flushing = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # reentrant, unlike `threading.Event`

    def write(self, line: bytes) -> None:
        """Queue a line, without its line end. It is dropped and counted if the queue is full."""
        size = len(line) + 1
        with self._lock:
            # After one lost line, all lines are lost until the thread takes the queue, because the note about lost
            # lines is written after the queued lines.
            if self._lost_since_taken or self._bytes + size > self._limit_bytes:
                self._lost_since_taken += 1
                self.lost += 1
                return
            self._bytes += size
            self._lines.append(line)
        if self._is_idle:
            self._wake_thread()

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until all queued lines are written, at most for the time-out; return whether they are."""
        deadline = time.monotonic() + timeout_seconds
        self._is_flushing = True
        try:
            self._wake.put(None)
            while self._lines or not self._is_idle:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.001)
        finally:
            self._is_flushing = False
        return True

    def close(self, timeout_seconds: float) -> None:
        """Flush and close the descriptor. Lines that are written later are dropped. Safe to repeat."""
        if self._is_closed:
            return
        self.flush(timeout_seconds)
        with self._lock:
            self._is_closed, self._limit_bytes = True, 0
            if self._thread is None:
                os.close(self._descriptor)
        self._wake.put(None)

    def _wake_thread(self) -> None:
        with self._lock:
            self._is_idle = False
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="log sink", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system has no free thread: the next line tries again
                    self._is_idle = True
                else:
                    self._thread = thread
                return
        self._wake.put(None)

    def _run(self) -> None:
        # A signal that the main thread blocks must stay pending, and this thread must not take it instead.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self._write(self._take())
            self._pause(_INTERVAL_SECONDS)
            self._is_idle = True
            while not self._lines:
                if self._is_closed:
                    os.close(self._descriptor)
                    return
                self._wake.get()
            self._is_idle = False

    def _take(self) -> bytes:
        """Return the queued lines, and the note about the lines that were lost after them."""
        with self._lock:
            lines, self._lines, self._bytes = self._lines, [], 0
            lost, self._lost_since_taken = self._lost_since_taken, 0
        if lost:
            lines.append(self._describe_loss(lost))
        return b"".join(part for line in lines for part in (line, b"\n"))

    def _write(self, data: bytes) -> None:
        """Write all of the data; after an error, try again until it succeeds or the sink is closed."""
        left, retry_seconds, has_failed = memoryview(data), _FIRST_RETRY_SECONDS, False
        while left and not (has_failed and self._is_closed):
            try:
                left = left[os.write(self._descriptor, left[:_WRITE_BYTES]) :]
            except BlockingIOError:  # another process has made the descriptor non-blocking
                has_failed = True
                self._wait_until_writable(retry_seconds)
            except OSError:  # the reader has closed the pipe, or the disk is full
                has_failed = True
                self._pause(retry_seconds)
                retry_seconds = min(2 * retry_seconds, _LONGEST_RETRY_SECONDS)
            else:
                retry_seconds, has_failed = _FIRST_RETRY_SECONDS, False

    def _wait_until_writable(self, timeout_seconds: float) -> None:
        with contextlib.suppress(OSError):
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll(1000 * timeout_seconds)

    def _pause(self, seconds: float) -> None:
        """Sleep; a flush ends or shortens the sleep."""
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=min(seconds, _INTERVAL_SECONDS) if self._is_flushing else seconds)
