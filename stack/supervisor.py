"""Supervisor of a plan's processes (`stack.plan`): starts them by dependency, restarts crashed ones, and ends them."""

import asyncio
import time
from collections.abc import Callable, Sequence

from stack.console import Console
from stack.process import Child, OrphanReaper, Process, StartError

FIRST_DELAY = 0.2  # seconds before a crashed process is restarted; doubles with every crash
LONGEST_DELAY = 10.0
HEALTHY = 30.0  # seconds of running after which the restart delay is reset
START_TIMEOUT = 120.0  # seconds to readiness; the first start compiles and migrates


class Supervisor:
    """Runs the processes of one plan. Call `start` once and `stop` once; crashed processes are restarted in between."""

    def __init__(
        self,
        plan: Sequence[Process],
        console: Console,
        reaper: OrphanReaper,
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Create the children without starting them. `changed` is called after a process has started or ended."""
        self.children = {p.name: Child(p, output=console.output, reaper=reaper) for p in plan}
        self._console = console
        self._changed = changed
        self._ready = {name: asyncio.Event() for name in self.children}
        self._restart_tasks: dict[str, asyncio.Task[None]] = {}
        self._reasons: dict[str, str] = {}  # reasons of intended restarts, by process
        self._starting: list[str] = []
        self._has_started = False  # before, processes warn that they cannot reach those that start

    async def start(self) -> None:
        """Start all processes, each when its dependencies are ready; return when all are ready.

        Raises:
            StartError: a process could not be started. The others keep running until `stop`.
        """
        failure = None  # raised outside of `except*`, which wraps errors in a group before Python 3.11.4
        try:
            async with asyncio.TaskGroup() as group:
                for child in self.children.values():
                    group.create_task(self._bring_up(child))
        except* StartError as errors:
            failure = errors.exceptions[0]
        finally:
            self._console.update("")
        if failure is not None:
            raise failure
        self._has_started = True
        self._console.watched.update(self.children)

    async def stop(self) -> None:
        """End every process, the last of the plan first, each with its stop signal and a bounded wait."""
        self._console.watched.clear()
        await self._release(*self._restart_tasks)
        for name, child in reversed(self.children.items()):
            if child.pid is not None:
                started = time.monotonic()
                await child.stop()
                self._console.show(f"{name} stopped in {time.monotonic() - started:.1f} s")
        self._changed()

    def kill(self) -> None:
        """Send SIGKILL to every process; a waiting `stop` then returns soon."""
        for child in self.children.values():
            child.kill()

    async def stop_process(self, name: str) -> None:
        """Stop one process and keep it down until `start_process`, to simulate an outage."""
        self._console.watched.discard(name)
        await self._release(name)
        await self.children[name].stop()
        self._changed()

    async def start_process(self, name: str) -> None:
        """Start a process that was stopped; return when it is ready.

        Raises:
            StartError: the process could not be started.
        """
        child = self.children[name]
        await child.start(START_TIMEOUT)
        self._watch(child)
        await self._restart_with(name)

    async def _bring_up(self, child: Child) -> None:
        process = child.process
        for name in process.depends_on:
            await self._ready[name].wait()
        started = time.monotonic()
        self._show_starting([*self._starting, process.name])
        await child.start(START_TIMEOUT)
        word = "ready" if process.ready else "done"
        self._console.show(f"{process.name} … {word} in {time.monotonic() - started:.1f} s")
        self._ready[process.name].set()
        self._show_starting([name for name in self._starting if name != process.name])
        if process.ready:
            self._watch(child)

    def _show_starting(self, names: list[str]) -> None:
        self._starting = names
        ready = sum(event.is_set() for event in self._ready.values())
        self._console.update(f"{ready} of {len(self._ready)} ready, starting {', '.join(names)}" if names else "")

    def _watch(self, child: Child) -> None:
        if self._has_started:
            self._console.watched.add(child.process.name)
        self._changed()
        self._restart_tasks[child.process.name] = asyncio.create_task(self._restart_when_ended(child))

    async def _release(self, *names: str) -> None:
        """Stop restarting these processes."""
        tasks = [self._restart_tasks.pop(name) for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _restart_when_ended(self, child: Child) -> None:
        """Restart the process when it has ended, with a growing delay while it keeps crashing."""
        name, delay = child.process.name, FIRST_DELAY
        while True:
            ended = f"exited with {await child.wait()}"
            reason = self._reasons.pop(name, None)
            if time.monotonic() - child.started_at > HEALTHY:
                delay = FIRST_DELAY
            while True:
                self._changed()
                if reason:
                    self._console.show(f"{name} is restarted: {reason}")
                    reason = None
                else:
                    self._console.show(f"{name} {ended}; restarting in {delay:g} s ({self._console.log_file(name)})")
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, LONGEST_DELAY)
                started = time.monotonic()
                try:
                    await child.spawn()
                    break
                except (StartError, OSError) as error:
                    ended = f"did not start ({error})"
            self._changed()
            try:
                await child.until_ready(START_TIMEOUT)
                self._console.show(f"{name} … ready again in {time.monotonic() - started:.1f} s")
                await self._restart_with(name)
            except StartError as error:
                if child.pid is not None:
                    self._console.show(str(error))  # the process still runs: keep waiting

    async def _restart_with(self, name: str) -> None:
        """Restart the processes that have `name` in their `restart_with`."""
        for child in self.children.values():
            if name in child.process.restart_with and child.pid is not None:
                self._reasons[child.process.name] = f"{name} lost its state"
                await child.stop()
