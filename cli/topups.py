"""The top-ups that a person has to look at, on stdout, a line each."""

from enum import IntEnum
from typing import Any
from uuid import UUID

import typer

from cli.reports import Admin, NoAnswerError, reports


class Reviewed(IntEnum):
    """What there was to look at, as the command's exit code."""

    NOTHING = 0
    """Nothing, or what was to be retried is."""
    SOMETHING = 1
    NOT = 2
    """The service or its database is away, or there is no such top-up to look at."""


def review(admin: Admin) -> Reviewed:
    """Shows what the card service at this admin address cannot end by itself, with why."""
    try:
        for report in reports("GET", admin, "/review"):
            if "top_ups" in report:
                typer.echo(f"{report['top_ups']:,} top-ups to look at")
                return Reviewed.SOMETHING if report["top_ups"] else Reviewed.NOTHING
            typer.echo(_told(report["top_up"]))
    except NoAnswerError as error:
        typer.echo(f"not known: {error}")
        return Reviewed.NOT
    typer.echo(f"not known: {admin} broke off before the end")
    return Reviewed.NOT


def retry(admin: Admin, top_up_id: UUID) -> Reviewed:
    """Has the card service try the step again in which a top-up stopped, and shows it as it is then."""
    try:
        top_up, _ = reports("POST", admin, f"/review/{top_up_id}/retry")
    except NoAnswerError as error:
        typer.echo(f"not retried: {error}")
        return Reviewed.NOT
    typer.echo(f"retried: {_told(top_up['top_up'])}")
    return Reviewed.NOTHING


def _told(top_up: dict[str, Any]) -> str:
    step = f" at {top_up['step']}" if top_up["step"] else ""
    failure = f", {top_up['failure']}" if top_up["failure"] else ""
    payment = f", payment {top_up['payment_id']}" if top_up["payment_id"] else ""
    why = f": {top_up['review']}" if top_up["review"] else ""
    return (
        f"{top_up['id']} {top_up['amount']} {top_up['currency']} to {top_up['account_id']}, "
        f"{top_up['status']}{step}{failure}{payment}{why}"
    )
