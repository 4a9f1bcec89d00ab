"""Commands that show and begin epochs of the ledger. Each prints one line on stdout.

An epoch is one uninterrupted sequence of operations of the ledger. After a restore from an older backup a new epoch has
to begin. The bank begins it when analytics detects the restore, or an operator begins it earlier with `begin_epoch`.
"""

from enum import IntEnum

import typer

from cli.admin_client import AdminEndpoint, NoResultError, stream_reports


class EpochResult(IntEnum):
    """Result of a command that shows or begins an epoch, used as the exit code."""

    DONE = 0
    NOT_DONE = 2
    """The bank or its database is down, or another command has begun an epoch first."""


def show_epoch(admin: AdminEndpoint) -> EpochResult:
    """Print the ledger's epoch, the time at which it began, and the reason."""
    try:
        (record,) = stream_reports("GET", admin, "/epoch")
    except NoResultError as error:
        typer.echo(f"the epoch is unknown: {error}")
        return EpochResult.NOT_DONE
    typer.echo(f"epoch {record['epoch'] or '(first)'} since {record['began_at']}: {record['reason'] or 'no restore'}")
    return EpochResult.DONE


def begin_epoch(admin: AdminEndpoint) -> EpochResult:
    """Begin a new epoch of the ledger, and print it."""
    try:
        (before,) = stream_reports("GET", admin, "/epoch")
        (record,) = stream_reports("POST", admin, "/restored", {"epoch": before["epoch"]})
    except NoResultError as error:
        typer.echo(f"no new epoch: {error}")
        return EpochResult.NOT_DONE
    typer.echo(f"epoch {record['epoch']} begins; it replaces {before['epoch'] or 'the first one'}")
    return EpochResult.DONE
