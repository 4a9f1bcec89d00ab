"""Lists of the processes of the whole system, with the settings of a test.

Processes get the settings in their own environment. The environment of the test process is not changed: the system
lives as long as a session or a module, and other tests of the same worker read the environment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from loadtests.target import NO_RATE_LIMIT
from stack.ports import Ports
from stack.process import Command, Process
from stack.system import Planner, full_system_plan

CHEAP_HASHES: Final[Mapping[str, str]] = {"IDENTITY_HASH_MEMORY_KIB": "1024", "IDENTITY_HASH_PASSES": "1"}
"""Settings that make logins fast."""


def no_rate_limits(*limits: str) -> dict[str, str]:
    """Return settings that switch off these rate limits, such as "LOGIN", because all tests call from one address."""
    return {f"GATEWAY_RATE_{limit}": NO_RATE_LIMIT for limit in limits}


def with_settings(process: Process, settings: Mapping[str, str]) -> Process:
    """Return the process with added or changed settings."""

    async def command() -> Command:
        usual = await process.command()
        return replace(usual, environment={**usual.environment, **settings})

    return replace(process, command=command)


def full_system_with(settings: Mapping[str, str]) -> Planner:
    """Return a planner of the full system in which every process has the settings."""

    def plan(ports: Ports, data: Path) -> Sequence[Process]:
        return [with_settings(process, settings) for process in full_system_plan(ports, data)]

    return plan
