"""Command line of the local system: `python -m stack up`, `down`, `logs`, `open`, `demo` and `clean`."""

import argparse
import asyncio
import sys
from functools import partial
from pathlib import Path

from stack import commands
from stack.console import Lines
from stack.demo import demo
from stack.engines.apache_kafka import POM
from stack.engines.jars import JarsUnavailable, fetch_jars
from stack.ports import DEFAULT
from stack.running import NotFoundError, find_system
from stack.system import LockedError, full_system_plan
from stack.up import DEFAULT_DATA, REFUSED, up


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stack", description="The whole system on one machine.")
    names = parser.add_subparsers(dest="command", required=True)
    start = names.add_parser("up", help="start everything; Ctrl-C stops it")
    start.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR")
    start.add_argument("--port", type=int, default=DEFAULT, metavar="PORT")
    start.add_argument("--tls", action="store_true", help="mutual TLS between the services")
    start.add_argument(
        "--kafka",
        choices=["embedded", "apache"],
        default="embedded",
        help="the broker; apache needs Java 17, and for its first start Maven",
    )
    start.add_argument("--verbose", action="store_true", help="show all log lines of all processes")
    for name, summary in (
        ("down", "stop the running system"),
        ("logs", "show the log lines of the running system"),
        ("open", "open the running system in the browser"),
    ):
        command = names.add_parser(name, help=summary)
        command.add_argument("--data", type=Path, metavar="DIR", help="if several systems run")
        command.add_argument("--port", type=int, metavar="PORT", help="if several systems run")
        if name == "logs":
            command.add_argument("--service", metavar="NAME", help="one process, such as bank; default: all")
    names.add_parser("clean", help="delete the data folder").add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR"
    )
    names.add_parser("demo", help="start everything on free ports, run a tour of all features, stop")
    arguments = parser.parse_args()
    if arguments.command == "up":
        lines = Lines.ALL if arguments.verbose else Lines.WARNINGS
        try:
            jars = _fetch_kafka() if arguments.kafka == "apache" else None
        except JarsUnavailable as error:
            sys.stderr.write(f"error: Apache Kafka cannot run here: {error}. `make up` runs an embedded broker\n")
            return REFUSED
        planner = partial(full_system_plan, tls=arguments.tls, kafka_jars=jars)
        return up(arguments.port, arguments.data, lines=lines, planner=planner)
    if arguments.command == "demo":
        return asyncio.run(demo())
    try:
        _run(arguments)
    except (NotFoundError, LockedError, commands.CommandError) as error:
        sys.stderr.write(f"error: {error}\n")
        return REFUSED
    return 0


def _fetch_kafka() -> Path:
    """Return the jars of Apache Kafka.

    Raises:
        JarsUnavailable: they cannot be installed.
    """
    sys.stderr.write("fetching Apache Kafka with Maven, unless it is in the cache (the first time takes a minute)\n")
    return fetch_jars(POM)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.command == "clean":
        commands.delete_data(arguments.data)
        return
    system = find_system(arguments.data, arguments.port)
    match arguments.command:
        case "down":
            commands.stop(system)
        case "logs":
            commands.show_logs(system, arguments.service)
        case "open":
            commands.open_browser(system)


if __name__ == "__main__":
    sys.exit(main())
