"""Starts the plan's processes in order of their dependencies, keeps them running, and ends them in reverse order."""

import asyncio
import time
from collections.abc import Callable, Sequence

from stack.console import Console
from stack.process import Child, Leash, Process, StartError

FIRST_DELAY = 0.2  # seconds before a crashed process is started again; doubles with every crash
LONGEST_DELAY = 10.0
HEALTHY = 30.0  # seconds a process has to run for its crashes to be forgotten
START_TIMEOUT = 120.0  # seconds to readiness; a first start compiles, migrates and fills folders


class Supervisor:
    """Runs one plan. `start` once, `stop` once; in between crashed processes come back by themselves."""

    def __init__(
        self, plan: Sequence[Process], console: Console, leash: Leash, *, changed: Callable[[], None] = lambda: None
    ) -> None:
        """Nothing runs yet. `changed` is called whenever a process has started or ended."""
        self.children = {p.name: Child(p, output=console.output, leash=leash) for p in plan}
        self._console = console
        self._changed = changed
        self._ready = {name: asyncio.Event() for name in self.children}
        self._guards: dict[str, asyncio.Task[None]] = {}
        self._reasons: dict[str, str] = {}  # why a process is being ended on purpose, to be started again at once

    async def start(self) -> None:
        """Starts everything, each process as soon as what it depends on is ready, and returns when all of it is.

        Raises:
            StartError: one of them could not be started. What did start keeps running until `stop`.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for child in self.children.values():
                    group.create_task(self._bring_up(child))
        except* StartError as errors:
            raise errors.exceptions[0] from None

    async def stop(self) -> None:
        """Ends every process, the last of the plan first, each with its own signal and a bounded grace."""
        await self._release(*self._guards)
        for name, child in reversed(self.children.items()):
            if child.pid is not None:
                began = time.monotonic()
                await child.stop()
                self._console.say(f"{name} stopped in {time.monotonic() - began:.1f} s")
        self._changed()

    def kill(self) -> None:
        """SIGKILL to every process at once, for who cannot wait for `stop`, which then returns soon."""
        for child in self.children.values():
            child.kill()

    async def take_away(self, name: str) -> None:
        """Stops one process and leaves it down, as an outage would, until `bring_back`."""
        await self._release(name)
        await self.children[name].stop()
        self._changed()

    async def bring_back(self, name: str) -> None:
        """Starts a process that was taken away; returns when it is ready.

        Raises:
            StartError: it could not be started.
        """
        child = self.children[name]
        await child.start(START_TIMEOUT)
        self._watch(child)
        await self._restart_with(name)

    async def _bring_up(self, child: Child) -> None:
        process = child.process
        for name in process.depends_on:
            await self._ready[name].wait()
        began = time.monotonic()
        await child.start(START_TIMEOUT)
        word = "ready" if process.ready else "done"
        self._console.say(f"{process.name} … {word} in {time.monotonic() - began:.1f} s")
        self._ready[process.name].set()
        if process.ready:
            self._watch(child)

    def _watch(self, child: Child) -> None:
        self._changed()
        self._guards[child.process.name] = asyncio.create_task(self._guard(child))

    async def _release(self, *names: str) -> None:
        """No longer starts the processes again that end."""
        guards = [self._guards.pop(name) for name in names]
        for guard in guards:
            guard.cancel()
        await asyncio.gather(*guards, return_exceptions=True)

    async def _guard(self, child: Child) -> None:
        """Starts the process again whenever it has ended, later and later while it keeps ending."""
        name, delay = child.process.name, FIRST_DELAY
        while True:
            ended = f"exited with {await child.wait()}"
            reason = self._reasons.pop(name, None)
            if time.monotonic() - child.started_at > HEALTHY:
                delay = FIRST_DELAY
            while True:
                self._changed()
                if reason:
                    self._console.say(f"{name} is restarted: {reason}")
                    reason = None
                else:
                    self._console.say(f"{name} {ended}; restarting in {delay:g} s")
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, LONGEST_DELAY)
                began = time.monotonic()
                try:
                    await child.spawn()
                    break
                except (StartError, OSError) as error:
                    ended = f"did not start ({error})"
            self._changed()
            try:
                await child.until_ready(START_TIMEOUT)
                self._console.say(f"{name} … ready again in {time.monotonic() - began:.1f} s")
                await self._restart_with(name)
            except StartError as error:
                if child.pid is not None:
                    self._console.say(str(error))  # it lives: to wait is all that can be done

    async def _restart_with(self, name: str) -> None:
        """Ends the processes that cannot survive that `name` was lost; their guards start them again."""
        for child in self.children.values():
            if name in child.process.restart_with and child.pid is not None:
                self._reasons[child.process.name] = f"{name} came back without what it knew"
                await child.stop()
