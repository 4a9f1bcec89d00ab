"""One system for all modules of this folder, whose tests kill, stop and freeze its processes."""

import random
from collections.abc import AsyncIterator
from functools import partial

import pytest

from stack.engines.cluster import remove_cluster
from stack.ports import Ports
from stack.system import System, run_system
from tests.e2e.outages.plan import plan_system


@pytest.fixture(scope="package")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    data = tmp_path_factory.mktemp("outages")
    async with run_system(Ports.free(), data, planner=partial(plan_system, random.getrandbits(32))) as system:
        yield system
    remove_cluster(data)
