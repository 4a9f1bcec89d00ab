"""Start of every process: its settings and its log.

A job runs once and needs only these two, so this module imports no server.
"""

from collections.abc import Callable
from typing import TypeVar

import structlog

from kit.runtime.settings import LogSettings
from kit.telemetry import logs

log = structlog.get_logger(__name__)


class JobError(Exception):
    """A job cannot do its work because of its environment. The message says what to do and has no secrets."""


ProcessSettings = TypeVar("ProcessSettings", bound=LogSettings)


def run_job(name: str, settings_class: type[ProcessSettings], job: Callable[[ProcessSettings], object]) -> None:
    """Run a job until it returns; `__main__` calls it. An error is logged and ends the process with status 1.

    A JobError is logged as one line, `job failed`. Other errors are faults of the job and are logged with a traceback.

    Args:
        name: name of the process in logs.
        settings_class: class of the settings, which are loaded from the environment. Invalid settings end the process
            with status 2.
        job: called with the settings.
    """
    settings = configure_process(name, settings_class)
    try:
        job(settings)
    except JobError as error:
        log.critical("job failed", error=str(error))
        raise SystemExit(1) from None


def configure_process(name: str, settings_class: type[ProcessSettings]) -> ProcessSettings:
    """Load the settings of a process and configure its log. Deprecated and removed names in use are logged.

    Args:
        name: name of the process in logs.
        settings_class: class of the settings, which are loaded from the environment. Invalid settings end the process
            with status 2.
    """
    settings = settings_class.load()
    logs.configure(name, settings)
    for old, new in settings.deprecated_names_in_use():
        log.warning("deprecated setting", name=old, use=new)
    for name_in_use in settings.removed_names_in_use():
        log.warning("removed setting has no effect", name=name_in_use)
    return settings
