"""A replay of the history, as a person follows it: progress on stderr, the outcome on stdout."""

from enum import IntEnum
from typing import Any
from uuid import UUID

import typer

from cli.reports import Admin, Meter, NoAnswerError, reports


class Replayed(IntEnum):
    """How a replay ended, as the command's exit code."""

    COMPLETE = 0
    INCOMPLETE = 1
    """The ledger itself lacks what it counts."""
    NOT = 2
    """The service, its database or the bank is away, one is running already, or there is no such account."""


def replay(admin: Admin, account: UUID | None, *, all_operations: bool) -> Replayed:
    """Has analytics at this admin address pull from the bank what it lacks, and shows it. It ends with one line."""
    parameters = {"account_id": str(account)} if account else {}
    if all_operations:
        parameters["all_operations"] = "true"
    try:
        outcome = _until_outcome(admin, parameters)
    except NoAnswerError as error:
        return _not_finished(str(error))
    told = f"{_done(outcome)} ({outcome['seconds']} s)"
    match outcome["outcome"]:
        case "unavailable":
            return _not_finished(f"ClickHouse or the bank went away after {told}; run it again to go on")
        case "incomplete":
            typer.echo(f"incomplete: the ledger lacks what it counts, {outcome['lacking']:,} times; {told}")
            return Replayed.INCOMPLETE
    if account and not outcome["accounts"] + outcome["removed"]:
        return _not_finished(f"the ledger has no account {account}")
    typer.echo(f"complete: {told}")
    return Replayed.COMPLETE


def _until_outcome(admin: Admin, parameters: dict[str, str]) -> dict[str, Any]:
    """Shows line after line; the last one.

    Raises:
        NoAnswerError: there was none.
    """
    meter = Meter()
    try:
        for report in reports("POST", admin, "/replay", parameters):
            if "outcome" in report:
                return report
            meter.show("replay", _done(report["progress"]))
    finally:
        meter.finish()
    raise NoAnswerError(f"{admin} broke off without an outcome")


def _done(report: dict[str, Any]) -> str:
    return (
        f"{report['accounts']:,} accounts checked, {report['pulled']:,} operations pulled, "
        f"{report['removed']:,} rows removed"
    )


def _not_finished(why: str) -> Replayed:
    typer.echo(f"not finished: {why}")
    return Replayed.NOT
