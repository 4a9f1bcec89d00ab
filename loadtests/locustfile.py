"""Users, options and events for Locust: `locust -f loadtests/locustfile.py -H URL`.

The first process of a run (the master, or the only one) creates the customers and the folder of the run with
`python -m loadtests.prepare`, and sends the plan to the workers. `python -m loadtests` prepares the run itself, and
passes the folder in LOAD_FOLDER. Each process records its requests in the folder.
"""

import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import gevent
import structlog
from flask import Response, jsonify, request
from locust import events
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import MasterRunner, WorkerRunner

from loadtests import account_selection, options, shapes
from loadtests.arrivals import ClosedLoop, OpenLoop
from loadtests.greenlets import refresh_timers
from loadtests.history.storage import HistoryWriter, RequestRecord
from loadtests.plan import FINISHED_PREFIX, STARTED, Plan
from loadtests.scenarios import NAMES, load_user_class
from loadtests.scenarios.users import WalletUser

RATE: Final = "rate"
"""Type of the message with a worker's arrival rate."""
PLAN: Final = "plan"
"""Type of the message with the plan and the folder of the run."""

INVALID_OPTIONS: Final = 2
"""Exit code of a run that lacks an option."""
_ROOT: Final = Path(__file__).parent.parent
_CONSTANT: Final = "constant"

log = structlog.get_logger(__name__)

USER_CLASSES = {name: load_user_class(name) for name in NAMES}
globals().update({each.__name__: each for each in USER_CLASSES.values()})  # Locust finds user classes in this module

prepared: list[Path] = []
"""Folder of a run that is prepared and not started yet; else empty."""


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Add the options of the plan to Locust's command line and, except the folder, to its web form."""
    add = parser.add_argument
    scenarios = f"what the users do: {', '.join(NAMES)}, several separated by commas, or all"
    add("--scenario", type=options.scenarios, default="rest", help=scenarios)
    add("--accounts", choices=[*account_selection.BY_NAME], default="uniform", help="selection of the accounts")
    customers = "number of customers, with one account each, that are created before the run"
    add("--customers", type=options.whole_number(2), default=50, help=customers)
    rate = "open loop: requests per second, independent of the responses; 0: closed loop"
    add("--rate", type=options.rate, default=0.0, help=rate)
    shape = "change of the load over time; needs --run-time"
    add("--shape", choices=[_CONSTANT, *shapes.BY_NAME], default=_CONSTANT, help=shape)
    add("--seed", type=options.seed, default="", help="repeat the choices of an earlier run; default: a random seed")
    add("--bank", type=options.optional_grpc_target, default="", help="gRPC target of the bank, for the scenario grpc")
    folder = "folder of a prepared run, with its customers"
    add("--load-folder", env_var="LOAD_FOLDER", default="", include_in_web_ui=False, help=folder)


def parsed_options(environment: Environment) -> Any:
    """Return the values of the command line and the web form."""
    return environment.parsed_options


@events.init.add_listener
def configure(environment: Environment, web_ui: Any = None, **_: Any) -> None:
    """Set up this process of Locust, once."""
    runner, parsed = environment.runner, parsed_options(environment)
    environment.events.spawning_complete.add_listener(lambda **_: (WalletUser.folder / STARTED).touch())
    if isinstance(runner, WorkerRunner):
        runner.register_message(PLAN, lambda msg, **_: begin(Path(msg.data["folder"]), Plan.from_json(msg.data[PLAN])))
        runner.register_message(RATE, lambda msg, **_: start_open_loop(environment, msg.data[RATE]))
        return
    environment.events.spawning_complete.add_listener(partial(distribute_rate, environment))
    if parsed.load_folder:
        plan = Plan.read(Path(parsed.load_folder))
        select_users(environment, ",".join(plan.scenarios), plan.shape)
    else:
        select_users(environment, parsed.scenario, parsed.shape)
    if web_ui:
        web_ui.app.before_request(partial(read_web_form, environment))
    if not web_ui or parsed.autostart:
        try:
            prepared.append(prepare(environment))
        except StopTest as error:
            log.error("run not prepared", reason=str(error))
            sys.exit(INVALID_OPTIONS)
    refresh_timers()


def select_users(environment: Environment, scenario: str, shape: str) -> None:
    """Select the users of the scenarios, unless the command line names user classes, and the shape of the load."""
    if not parsed_options(environment).user_classes:
        environment.user_classes[:] = [USER_CLASSES[name] for name in options.scenarios(scenario).split(",")]
    environment.shape_class = new_shape = shapes.BY_NAME[shape]() if shape in shapes.BY_NAME else None
    if new_shape:
        new_shape.runner = environment.runner


def read_web_form(environment: Environment) -> Response | None:
    """Select the users that the web form names. Locust itself reads the other fields afterwards."""
    if request.method == "POST" and request.path.endswith("/swarm") and not parsed_options(environment).load_folder:
        try:
            select_users(environment, request.form.get("scenario", "rest"), request.form.get("shape", _CONSTANT))
        except options.InvalidOption as error:
            return jsonify({"success": False, "message": str(error)})
    return None


def prepare(environment: Environment) -> Path:
    """Return the folder of a new run, with its plan and its customers.

    Raises:
        StopTest: an option is missing, or the customers could not be created. The message says what to do.
    """
    parsed = parsed_options(environment)
    if parsed.load_folder:
        return Path(parsed.load_folder)
    if not environment.host:
        raise StopTest("name the URL of the gateway with -H")
    if environment.shape_class and not parsed.run_time:
        raise StopTest("a shape needs the duration of the run: name it with --run-time")
    names = [name for name, user in USER_CLASSES.items() if user in environment.user_classes]
    if "grpc" in names and not parsed.bank:
        raise StopTest("the scenario grpc calls the bank directly: name its gRPC target with --bank")
    plan = Plan(
        host=environment.host.rstrip("/"),
        bank=parsed.bank,
        scenarios=names,
        users=parsed.num_users or 1,
        seconds=parsed.run_time or 0.0,
        rate=parsed.rate,
        shape="" if parsed.shape == _CONSTANT else parsed.shape,
        account_selection=parsed.accounts,
        processes=parsed.expect_workers if isinstance(environment.runner, MasterRunner) else 1,
        seed=int(parsed.seed) if parsed.seed else random.randrange(10**6),  # noqa: S311  no secret
    )
    done = subprocess.run(  # noqa: S603  fixed arguments
        [sys.executable, "-m", "loadtests.prepare", "--customers", str(parsed.customers)],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        input=plan.to_json(),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise StopTest("the customers were not created; the reason is above")
    return Path(done.stdout.decode().strip())


@events.test_start.add_listener
def start_run(environment: Environment, **_: Any) -> None:
    """Begin the run in the first process, and let the workers begin it. In the web interface, prepare it first."""
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        return
    try:
        folder = prepared.pop() if prepared else prepare(environment)
    except StopTest as error:
        log.error("run not prepared", reason=str(error))
        raise
    plan = Plan.read(folder)
    if isinstance(environment.shape_class, shapes.Shape):
        environment.shape_class.set_up(plan, folder)
    if isinstance(runner, MasterRunner):
        WalletUser.plan, WalletUser.folder = plan, folder
        runner.send_message(PLAN, {PLAN: plan.to_json(), "folder": str(folder)})
    else:
        begin(folder, plan)


def begin(folder: Path, plan: Plan) -> None:
    """Set up the user classes of this process for a run, before users are spawned."""
    folder.mkdir(parents=True, exist_ok=True)  # on the machine of a worker that is not the master's
    WalletUser.plan, WalletUser.folder = plan, folder
    WalletUser.writer = HistoryWriter(folder)
    WalletUser.arrivals = ClosedLoop()


@events.test_stop.add_listener
def finish(environment: Environment, **_: Any) -> None:
    """Flush the records and mark them as complete, after the last user of this process has stopped."""
    folder = WalletUser.folder
    if not isinstance(environment.runner, MasterRunner):
        WalletUser.writer.flush()
        (folder / f"{FINISHED_PREFIX}{os.getpid()}").touch()
    if not isinstance(environment.runner, WorkerRunner) and not parsed_options(environment).load_folder:
        log.info(
            "run recorded", folder=str(folder), check=f"python -m loadtests.check {folder} --ledger postgresql://…"
        )


def distribute_rate(environment: Environment, **_: Any) -> None:
    """Start the open loop after users are spawned; each worker gets an equal share of the arrival rate."""
    runner, rate = environment.runner, WalletUser.plan.rate
    if not rate:
        return
    if isinstance(runner, MasterRunner):
        runner.send_message(RATE, {RATE: rate / runner.worker_count})
    else:
        start_open_loop(environment, rate)


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
