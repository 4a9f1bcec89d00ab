"""What a service proves of its data, as a person reads it: progress on stderr, violations and the verdict on stdout."""

import json
import shutil
import sys
from enum import IntEnum
from typing import Any, Final

import httpx
import typer

_LINES: Final = "application/x-ndjson"
_TIMEOUT: Final = httpx.Timeout(5.0, read=90.0)
"""The longest statement of a proof may take a minute, in which nothing is heard of it."""


class Proven(IntEnum):
    """How a proof ended, as the command's exit code."""

    SOUND = 0
    BROKEN = 1
    NOT = 2
    """The service or its database is away, or a proof is running already: the data may be sound or not."""


def follow(admin: str) -> Proven:
    """Has the service at this admin address prove its data, and shows it. It ends with the verdict, in one line."""
    try:
        with httpx.stream("GET", f"{admin}/integrity", timeout=_TIMEOUT, trust_env=False) as response:
            if response.headers.get("content-type") != _LINES:
                response.read()
                return _not_proven(f"{admin} answers {response.status_code}: {_detail(response)}")
            verdict = _until_verdict(response)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _not_proven(f"{admin} does not answer, or no longer: {error or type(error).__name__}")
    if verdict["verdict"] == "unavailable":
        return _not_proven("its database went away before the end")
    rows = ", ".join(f"{count:,} {table}" for table, count in verdict["rows"].items())
    if verdict["verdict"] == "sound":
        typer.echo(f"sound: every law holds of {rows} ({verdict['seconds']} s)")
        return Proven.SOUND
    laws = ", ".join(f"{law} {count:,}" for law, count in verdict["broken"].items())
    typer.echo(f"broken: {verdict['violations']:,} violations ({laws}) among {rows}")
    return Proven.BROKEN


def _until_verdict(response: httpx.Response) -> dict[str, Any]:
    """Shows line after line; the verdict.

    Raises:
        httpx.RemoteProtocolError: there was none.
    """
    meter = _Meter()
    for line in response.iter_lines():
        report: dict[str, Any] = json.loads(line)
        if "progress" in report:
            meter.show(**report["progress"])
            continue
        meter.finish()
        if "verdict" in report:
            return report
        violation = report["violation"]
        row = ", ".join(f"{name} {value}" for name, value in violation["row"].items())
        typer.echo(f"{violation['law']}: {row}: found {violation['found']}, expected {violation['expected']}")
    raise httpx.RemoteProtocolError("it broke off without a verdict")


class _Meter:
    """One line on a terminal, rewritten as the walk goes on; elsewhere a line a walk, at its end."""

    def __init__(self) -> None:
        self._rewrites = sys.stderr.isatty()
        self._walk = self._line = ""

    def show(self, walk: str, verified_up_to: str, rows: int) -> None:
        """How far a walk has come."""
        if walk != self._walk:
            self.finish()
        self._walk, self._line = walk, f"{walk}: {rows:,} rows, up to {verified_up_to}"
        if self._rewrites:
            width = shutil.get_terminal_size().columns - 1
            typer.echo(f"\r{self._line[:width]}\033[K", nl=False, err=True)

    def finish(self) -> None:
        """The end of the line."""
        if self._line:
            typer.echo("" if self._rewrites else self._line, err=True)
        self._line = ""


def _not_proven(why: str) -> Proven:
    typer.echo(f"not proven: {why}")
    return Proven.NOT


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, LookupError, TypeError):
        return response.reason_phrase
