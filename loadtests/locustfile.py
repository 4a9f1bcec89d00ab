"""Entry point of Locust: `locust -f loadtests/locustfile.py`, with the folder of the run in LOAD_FOLDER.

`python -m loadtests` creates the folder, starts Locust and checks the records afterwards.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests import shapes
from loadtests.arrivals import OpenLoop
from loadtests.history.storage import HistoryWriter, RequestRecord
from loadtests.plan import FINISHED_PREFIX, STARTED, Plan
from loadtests.scenarios import load_user_class
from loadtests.scenarios.users import WalletUser

FOLDER = Path(os.environ["LOAD_FOLDER"])
PLAN = Plan.read(FOLDER)
RATE = "rate"

for name in PLAN.scenarios:
    globals()[name] = load_user_class(name)  # Locust looks for user classes in this module

if PLAN.shape:  # Locust also looks for a shape class in this module
    attributes = {"users": PLAN.users, "seconds": PLAN.seconds, "folder": FOLDER}
    globals()["Shape"] = type("Shape", (shapes.BY_NAME[PLAN.shape],), attributes)


@events.init.add_listener
def configure(environment: Environment, **_: Any) -> None:
    """Set up the user classes, once per process, before users are spawned."""
    WalletUser.plan = PLAN
    if not isinstance(environment.runner, MasterRunner):
        WalletUser.writer = HistoryWriter(FOLDER)
    environment.events.spawning_complete.add_listener(lambda **_: (FOLDER / STARTED).touch())
    if not PLAN.rate:
        return
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message(RATE, lambda msg, **_: start_open_loop(environment, msg.data[RATE]))
    else:
        environment.events.spawning_complete.add_listener(partial(distribute_rate, environment))


@events.test_stop.add_listener
def finish(environment: Environment, **_: Any) -> None:
    """Flush the records and mark them as complete, after the last user of this process has stopped."""
    if not isinstance(environment.runner, MasterRunner):
        WalletUser.writer.flush()
        (FOLDER / f"{FINISHED_PREFIX}{os.getpid()}").touch()


def distribute_rate(environment: Environment, **_: Any) -> None:
    """Start the open loop after users are spawned; each worker gets an equal share of the arrival rate."""
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        runner.send_message(RATE, {RATE: PLAN.rate / runner.worker_count})
    else:
        start_open_loop(environment, PLAN.rate)


def start_open_loop(environment: Environment, rate: float) -> None:
    """Switch the users of this process from the closed loop to an open loop."""
    if isinstance(WalletUser.arrivals, OpenLoop):
        return  # called again because a shape changed the number of users, which does not change the arrival rate

    def record_dropped(due: float) -> None:
        WalletUser.writer.write(RequestRecord(name="dropped", due=due, began=due, ended=due, dropped=1))
        environment.events.request.fire(
            request_type="open loop",
            name="dropped",
            response_time=0,
            response_length=0,
            exception=RuntimeError("every user was busy"),
            context={},
        )

    WalletUser.arrivals = arrivals = OpenLoop(rate, record_dropped)
    environment.events.test_stopping.add_listener(lambda **_: arrivals.stop())
    gevent.spawn(arrivals.run)
