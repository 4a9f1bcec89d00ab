"""Repair of operations that are dated in the future: progress on stderr, the outcome on stdout."""

from enum import IntEnum
from typing import Any

import typer

from cli.admin_client import AdminEndpoint, NoResultError, ProgressLine, stream_reports


class RedateResult(IntEnum):
    """Result of the repair, used as the exit code."""

    DONE = 0
    """Nothing is dated in the future any more."""
    FOUND = 1
    """Operations are dated in the future. Nothing was changed."""
    NOT_FINISHED = 2
    """The bank or its database is down, or rows of the ledger contradict each other."""


def redate(admin: AdminEndpoint, *, apply: bool) -> RedateResult:
    """Give new dates to operations that are dated in the future, or only count them. Safe to repeat.

    Prints the outcome as one line.

    Args:
        admin: the admin interface of the bank.
        apply: change the dates; otherwise only count the operations.
    """
    try:
        outcome = _print_until_outcome(admin, apply=apply)
    except NoResultError as error:
        typer.echo(f"not finished: {error}")
        return RedateResult.NOT_FINISHED
    counts = f"{outcome['transfers']:,} transfers of {outcome['accounts']:,} accounts"
    match outcome["outcome"]:
        case "unavailable":
            typer.echo("not finished: the ledger's database became unavailable; run it again")
            return RedateResult.NOT_FINISHED
        case "contradiction":
            typer.echo("not finished: rows of the ledger contradict each other; run `wallet integrity`")
            return RedateResult.NOT_FINISHED
        case "found" if outcome["accounts"]:
            typer.echo(f"found: {counts} are dated in the future; run it again with --apply")
            return RedateResult.FOUND
        case "found":
            typer.echo("nothing is dated in the future")
        case _:
            typer.echo(f"redated: {counts} ({outcome['seconds']} s)")
    return RedateResult.DONE


def _print_until_outcome(admin: AdminEndpoint, *, apply: bool) -> dict[str, Any]:
    """Print progress; return the outcome.

    Raises:
        NoResultError: the stream ended without an outcome.
    """
    progress = ProgressLine()
    try:
        for report in stream_reports("POST", admin, "/redate", {"apply": str(apply).lower()}):
            if "outcome" in report:
                return report
            progress.show("redate", f"{report['progress']['transfers']:,} transfers redated")
    finally:
        progress.finish()
    raise NoResultError(f"{admin} closed the stream without an outcome")
