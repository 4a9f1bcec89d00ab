"""Command line of the local system: `python -m stack up`, `demo` and `clean`."""

import argparse
import asyncio
import shutil
import sys
from functools import partial
from pathlib import Path

from stack.demo import demo
from stack.engines.cluster import remove_cluster
from stack.ports import DEFAULT
from stack.system import LockedError, full_system_plan, lock_data_folder
from stack.up import DEFAULT_DATA, REFUSED, up


def clean(data: Path) -> int:
    """Delete the data folder and its PostgreSQL cluster. The deletion is refused while a system uses the folder."""
    if not data.exists():
        return 0
    try:
        with lock_data_folder(data.absolute()):
            remove_cluster(data.absolute())
            shutil.rmtree(data)
    except LockedError as error:
        sys.stderr.write(f"error: {error}\n")
        return REFUSED
    return 0


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stack", description="The whole system on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in (("up", "start everything; Ctrl-C stops it"), ("clean", "delete the data folder")):
        command = commands.add_parser(name, help=summary)
        command.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR")
        if name == "up":
            command.add_argument("--port", type=int, default=DEFAULT, metavar="PORT")
            command.add_argument("--tls", action="store_true", help="mutual TLS between the services")
    commands.add_parser("demo", help="start everything on free ports, run a tour of all features, stop")
    arguments = parser.parse_args()
    if arguments.command == "demo":
        return asyncio.run(demo())
    if arguments.command == "clean":
        return clean(arguments.data)
    return up(arguments.port, arguments.data, planner=partial(full_system_plan, tls=arguments.tls))


if __name__ == "__main__":
    sys.exit(main())
