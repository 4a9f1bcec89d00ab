"""One system for all modules of this folder, whose tests kill, stop and freeze its processes."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from stack.engines.cluster import remove_cluster
from stack.ports import Ports
from stack.system import System, run_system
from tests.e2e.outages.plan import plan_system
from tests.engine_groups import SharedEngines


@pytest.fixture(scope="session")
async def system(shared_engines: SharedEngines, tmp_path_factory: pytest.TempPathFactory) -> System:
    return await shared_engines.start("tests/e2e/outages", run_outages_system(tmp_path_factory.mktemp("outages")))


@asynccontextmanager
async def run_outages_system(data: Path) -> AsyncIterator[System]:
    async with run_system(Ports.free(), data, planner=partial(plan_system, random.getrandbits(32))) as system:
        yield system
    remove_cluster(data)
