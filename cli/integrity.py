"""Integrity check of one service: progress on stderr, violations and the verdict on stdout."""

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import typer

from cli.admin_client import AdminEndpoint, NoResultError, ProgressLine, stream_reports


class IntegrityResult(IntEnum):
    """Result of an integrity check, used as the exit code."""

    SOUND = 0
    BROKEN = 1
    NOT_PROVEN = 2
    """The check has no verdict: the service refused the call or is down, its database or another service is
    unavailable, or another check is running. It is unknown whether the data are sound."""


def worst_result(results: Iterable[IntegrityResult]) -> IntegrityResult:
    """Return BROKEN if one of the results is BROKEN, else NOT_PROVEN if one is NOT_PROVEN, else SOUND."""
    unique = set(results)
    order = (IntegrityResult.BROKEN, IntegrityResult.NOT_PROVEN)
    return next((each for each in order if each in unique), IntegrityResult.SOUND)


def check_integrity(admin: AdminEndpoint, name: str = "") -> IntegrityResult:
    """Run the service's integrity check and print its violations. The last line is the verdict.

    Args:
        admin: the service's admin interface.
        name: name of the service; if set, the line of the verdict begins with it.
    """
    label = f"{name}: " if name else ""
    try:
        verdict = _print_until_verdict(admin)
    except NoResultError as error:
        typer.echo(f"{label}not proven: {error}")
        return IntegrityResult.NOT_PROVEN
    if verdict["verdict"] == "unavailable":
        typer.echo(f"{label}not proven: the database or another service became unavailable during the check")
        return IntegrityResult.NOT_PROVEN
    rows = ", ".join(f"{count:,} {table}" for table, count in verdict["rows"].items())
    pending = "".join(f"; {count:,} {scan} are still in transit" for scan, count in verdict["behind"].items())
    if verdict["verdict"] == "sound":
        typer.echo(f"{label}sound: all invariants hold for {rows}{pending} ({verdict['seconds']} s)")
        return IntegrityResult.SOUND
    broken = ", ".join(f"{invariant} {count:,}" for invariant, count in verdict["broken"].items())
    typer.echo(f"{label}broken: {verdict['violations']:,} violations ({broken}) in {rows}{pending}")
    return IntegrityResult.BROKEN


def _print_until_verdict(admin: AdminEndpoint) -> dict[str, Any]:
    """Print progress and violations; return the verdict.

    Raises:
        NoResultError: the call failed (see `stream_reports`), or the stream ended without a verdict.
    """
    progress = ProgressLine()
    try:
        for report in stream_reports("GET", admin, "/integrity"):
            if "progress" in report:
                _show_progress(progress, **report["progress"])
                continue
            progress.finish()
            if "verdict" in report:
                return report
            violation = report["violation"]
            row = ", ".join(f"{name} {value}" for name, value in violation["row"].items())
            typer.echo(f"{violation['law']}: {row}: found {violation['found']}, expected {violation['expected']}")
    finally:
        progress.finish()
    raise NoResultError(f"{admin} closed the stream without a verdict")


def _show_progress(progress: ProgressLine, walk: str, verified_up_to: str, rows: int) -> None:
    progress.show(walk, f"{walk}: {rows:,} rows, up to {verified_up_to}")
