"""`python -m stack up`: the whole system; `demo`: the tour; `clean`: forget its data."""

import argparse
import asyncio
import shutil
import sys
from functools import partial
from pathlib import Path

from stack.demo import demo
from stack.engines.cluster import remove_cluster
from stack.ports import DEFAULT
from stack.system import LockedError, locked, plan_of
from stack.up import DEFAULT_DATA, REFUSED, up


def clean(data: Path) -> int:
    """Deletes the data folder, and its database cluster wherever that lives; refused while a system runs on it."""
    if not data.exists():
        return 0
    try:
        with locked(data.absolute()):
            remove_cluster(data.absolute())
            shutil.rmtree(data)
    except LockedError as error:
        sys.stderr.write(f"error: {error}\n")
        return REFUSED
    return 0


def main() -> int:
    """Runs the command line and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stack", description="The whole system on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, does in (("up", "start everything; Ctrl-C stops it"), ("clean", "delete the data folder")):
        command = commands.add_parser(name, help=does)
        command.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR")
        if name == "up":
            command.add_argument("--port", type=int, default=DEFAULT, metavar="PORT")
            command.add_argument("--tls", action="store_true", help="mutual TLS between the services")
    commands.add_parser("demo", help="start everything on free ports, walk through what it does, stop")
    arguments = parser.parse_args()
    if arguments.command == "demo":
        return asyncio.run(demo())
    if arguments.command == "clean":
        return clean(arguments.data)
    return up(arguments.port, arguments.data, planner=partial(plan_of, tls=arguments.tls))


if __name__ == "__main__":
    sys.exit(main())
