"""Groups of test modules that share an expensive engine, and the end of these engines."""

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Final, Self, TypeVar

SHARED_SYSTEM: Final = "the shared system"
SEPARATE_SYSTEMS: Final = "separate systems"
HISTORY_ENGINES: Final = "ClickHouse and Apache Kafka"
LARGE_GROUPS: Final = (SHARED_SYSTEM, SEPARATE_SYSTEMS, HISTORY_ENGINES)

_SEPARATE: Final = ("outages/", "test_chaos.py", "test_demo.py", "test_replicas.py")
"""Modules in `tests/e2e` that start their own systems, and the folder whose modules share one separate system."""
_WITH_APACHE_KAFKA: Final = ("tests/integration/bank/test_outbox_relay.py", "tests/integration/stack/test_kafka.py")

EngineT = TypeVar("EngineT")


def group_of(nodeid: str) -> str:
    """Return the group of a test module or of a test. Most modules are a group by themselves.

    The modules of a group run one after the other on one worker, so that their engine is started only once. Modules
    that start separate systems are a group, too, so that at most two systems run at a time.
    """
    module = nodeid.partition("::")[0]
    if module.startswith("tests/e2e/"):
        is_separate = module.removeprefix("tests/e2e/").startswith(_SEPARATE)
        return SEPARATE_SYSTEMS if is_separate else SHARED_SYSTEM
    if module.startswith("tests/integration/analytics/") or module in _WITH_APACHE_KAFKA:
        return HISTORY_ENGINES
    return module


class SharedEngines:
    """Running engines. As an async context manager it stops all engines at the end of the block."""

    def __init__(self) -> None:
        self._stacks: dict[str, AsyncExitStack] = {}

    async def start(self, users: str, engine: AbstractAsyncContextManager[EngineT]) -> EngineT:
        """Start an engine that runs until the last module of its users, which are a group or a folder."""
        return await self._stacks.setdefault(users, AsyncExitStack()).enter_async_context(engine)

    async def stop_all_but(self, *users: str) -> None:
        """Stop the engines of all other users."""
        for each in self._stacks.keys() - set(users):
            await self._stacks.pop(each).aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_all_but()
