"""Replay of the operation history: progress on stderr, the outcome on stdout."""

from enum import IntEnum
from typing import Any
from uuid import UUID

import typer

from cli.admin_client import AdminEndpoint, NoResultError, ProgressLine, stream_reports


class ReplayResult(IntEnum):
    """Result of a replay, used as the exit code."""

    COMPLETE = 0
    INCOMPLETE = 1
    """The bank returned fewer operations of an account than the account has according to its version."""
    NOT_FINISHED = 2
    """A service or database is down, another replay is running, or the account does not exist."""


def replay_history(admin: AdminEndpoint, account: UUID | None, *, all_operations: bool) -> ReplayResult:
    """Run a replay and print its outcome as one line. Safe to interrupt and to repeat.

    Args:
        admin: the admin interface of analytics.
        account: replay this account only; None means all accounts.
        all_operations: compare every stored row with the ledger instead of only filling gaps.
    """
    parameters = {"account_id": str(account)} if account else {}
    if all_operations:
        parameters["all_operations"] = "true"
    try:
        outcome = _print_until_outcome(admin, parameters)
    except NoResultError as error:
        return _not_finished(str(error))
    counts = f"{_format_counts(outcome)} ({outcome['seconds']} s)"
    match outcome["outcome"]:
        case "unavailable":
            return _not_finished(f"ClickHouse or the bank became unavailable after {counts}; run it again to continue")
        case "incomplete":
            missing = "{:,} operations" if all_operations else "operations of {:,} accounts"
            typer.echo(f"incomplete: the ledger lacks {missing.format(outcome['lacking'])}; {counts}")
            return ReplayResult.INCOMPLETE
    if account and not outcome["accounts"] + outcome["removed"]:
        return _not_finished(f"the ledger has no account {account}")
    typer.echo(f"complete: {counts}")
    return ReplayResult.COMPLETE


def _print_until_outcome(admin: AdminEndpoint, parameters: dict[str, str]) -> dict[str, Any]:
    """Print progress; return the outcome.

    Raises:
        NoResultError: the stream ended without an outcome.
    """
    progress = ProgressLine()
    try:
        for report in stream_reports("POST", admin, "/replay", parameters):
            if "outcome" in report:
                return report
            progress.show("replay", _format_counts(report["progress"]))
    finally:
        progress.finish()
    raise NoResultError(f"{admin} closed the stream without an outcome")


def _format_counts(report: dict[str, Any]) -> str:
    return (
        f"{report['accounts']:,} accounts checked, {report['pulled']:,} operations pulled, "
        f"{report['removed']:,} rows removed"
    )


def _not_finished(reason: str) -> ReplayResult:
    typer.echo(f"not finished: {reason}")
    return ReplayResult.NOT_FINISHED
