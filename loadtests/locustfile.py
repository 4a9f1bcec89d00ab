"""What Locust runs: `locust -f loadtests/locustfile.py`, with the run's folder in LOAD_FOLDER. `python -m loadtests`
makes that folder, starts this and judges what it leaves.
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
from loadtests.arrivals import Open
from loadtests.history.log import Line, Log
from loadtests.plan import BEGUN, ENDED, Plan
from loadtests.scenarios import scenario
from loadtests.scenarios.person import Person

FOLDER = Path(os.environ["LOAD_FOLDER"])
PLAN = Plan.read(FOLDER)
RATE = "rate"

for name in PLAN.scenarios:
    globals()[name] = scenario(name)  # where Locust looks for users

if PLAN.shape:  # the same
    known = {"users": PLAN.users, "seconds": PLAN.seconds, "folder": FOLDER}
    globals()["Shape"] = type("Shape", (shapes.BY_NAME[PLAN.shape],), known)


@events.init.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """Once a process, before there are users."""
    Person.plan = PLAN
    if not isinstance(environment.runner, MasterRunner):
        Person.log = Log(FOLDER)
    environment.events.spawning_complete.add_listener(lambda **_: (FOLDER / BEGUN).touch())
    if not PLAN.rate:
        return
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message(RATE, lambda msg, **_: arrive(environment, msg.data[RATE]))
    else:
        environment.events.spawning_complete.add_listener(partial(share, environment))


@events.test_stop.add_listener
def end(environment: Environment, **_: Any) -> None:
    """Writes what is not written yet, and that it is all: the last user of this process has gone."""
    if not isinstance(environment.runner, MasterRunner):
        Person.log.flush()
        (FOLDER / f"{ENDED}{os.getpid()}").touch()


def share(environment: Environment, **_: Any) -> None:
    """Requests are due as soon as there is somebody to make them; each worker makes its part."""
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        runner.send_message(RATE, {RATE: PLAN.rate / runner.worker_count})
    else:
        arrive(environment, PLAN.rate)


def arrive(environment: Environment, rate: float) -> None:
    """From now on requests are due at this rate; users wait for their turn."""
    if isinstance(Person.arrivals, Open):
        return  # a shape has changed how many users there are, not how often they are needed

    def dropped(due: float) -> None:
        Person.log.write(Line(name="dropped", due=due, began=due, ended=due, dropped=1))
        environment.events.request.fire(
            request_type="open loop",
            name="dropped",
            response_time=0,
            response_length=0,
            exception=RuntimeError("every user was busy"),
            context={},
        )

    Person.arrivals = arrivals = Open(rate, dropped)
    environment.events.test_stopping.add_listener(lambda **_: arrivals.stop())
    gevent.spawn(arrivals.run)
