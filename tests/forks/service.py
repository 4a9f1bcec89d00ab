"""Code that a fork runs: it becomes a service."""

import atexit
import os
import runpy
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Final

SERVICES: Final = (
    *(f"subgraphs.{name}.service" for name in ("bank", "card", "analytics", "identity")),
    *(f"subgraphs.{name}.service.migrations" for name in ("bank", "card", "analytics", "identity")),
    "gateway",
    "sandbox",
    "provisioning.seed",
)
"""Packages and modules that run as forks in place of `python -m`."""


class Descriptor:
    """File descriptor that a fork inherits when it gets this object as an argument."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _inherit, (DupFd(self.number),)


def _inherit(duplicate: Any) -> Descriptor:
    return Descriptor(duplicate.detach())


def run_service(
    name: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    output: Descriptor,
    starting: Descriptor,
) -> None:
    """Run the package or module as `__main__`.

    Args:
        name: one of `SERVICES`.
        arguments: command-line arguments.
        environment: the complete environment.
        cwd: working directory.
        output: standard output and standard error.
        starting: closed as soon as this process leads its own session.
    """
    os.setsid()
    for standard in (1, 2):
        os.dup2(output.number, standard)
    os.close(output.number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [name, *arguments]
    os.close(starting.number)
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    finally:  # as at the end of an interpreter
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
