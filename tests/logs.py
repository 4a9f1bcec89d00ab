"""Warnings that a test has caused."""

import logging
from collections.abc import Iterable
from typing import Any


def own_warnings(lines: Iterable[Any], records: Iterable[logging.LogRecord] = ()) -> list[Any]:
    """Return warnings and errors of structlog and of the standard library's logging, except those of other fixtures.

    Some bank fixtures live as long as the test session and have no broker. Their relay logs warnings during any test of
    the same worker.

    Args:
        lines: log entries from `structlog.testing.capture_logs`.
        records: log records from the fixture `caplog`.
    """
    own_lines = [line for line in lines if line["log_level"] in {"warning", "error"} and line.get("task") != "relay"]
    own_records = [
        record
        for record in records
        if record.levelno >= logging.WARNING and record.name.partition(".")[0] != "aiokafka"
    ]
    return [*own_lines, *own_records]
