"""What a service proves of its data, as a person reads it: progress on stderr, violations and the verdict on stdout."""

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import typer

from cli.reports import Admin, Meter, NoAnswerError, reports


class Proven(IntEnum):
    """How a proof ended, as the command's exit code."""

    SOUND = 0
    BROKEN = 1
    NOT = 2
    """The service or its database is away, or a proof is running already: the data may be sound or not."""


def worst(proofs: Iterable[Proven]) -> Proven:
    """Of several proofs: broken if one is, else not proven if one is not."""
    ended = set(proofs)
    return next((each for each in (Proven.BROKEN, Proven.NOT) if each in ended), Proven.SOUND)


def follow(admin: Admin, name: str = "") -> Proven:
    """Has the service at this admin address prove its data, and shows it. It ends with the verdict, in one line, which
    begins with the service's name if there is one.
    """
    label = f"{name}: " if name else ""
    try:
        verdict = _until_verdict(admin)
    except NoAnswerError as error:
        typer.echo(f"{label}not proven: {error}")
        return Proven.NOT
    if verdict["verdict"] == "unavailable":
        typer.echo(f"{label}not proven: its database, or a service that it asks, went away before the end")
        return Proven.NOT
    rows = ", ".join(f"{count:,} {table}" for table, count in verdict["rows"].items())
    rows += "".join(f"; {count:,} of the {walk} are on their way" for walk, count in verdict["behind"].items())
    if verdict["verdict"] == "sound":
        typer.echo(f"{label}sound: every law holds of {rows} ({verdict['seconds']} s)")
        return Proven.SOUND
    laws = ", ".join(f"{law} {count:,}" for law, count in verdict["broken"].items())
    typer.echo(f"{label}broken: {verdict['violations']:,} violations ({laws}) among {rows}")
    return Proven.BROKEN


def _until_verdict(admin: Admin) -> dict[str, Any]:
    """Shows line after line; the verdict.

    Raises:
        NoAnswerError: there was none.
    """
    meter = Meter()
    try:
        for report in reports("GET", admin, "/integrity"):
            if "progress" in report:
                _show(meter, **report["progress"])
                continue
            meter.finish()
            if "verdict" in report:
                return report
            violation = report["violation"]
            row = ", ".join(f"{name} {value}" for name, value in violation["row"].items())
            typer.echo(f"{violation['law']}: {row}: found {violation['found']}, expected {violation['expected']}")
    finally:
        meter.finish()
    raise NoAnswerError(f"{admin} broke off without a verdict")


def _show(meter: Meter, walk: str, verified_up_to: str, rows: int) -> None:
    meter.show(walk, f"{walk}: {rows:,} rows, up to {verified_up_to}")
