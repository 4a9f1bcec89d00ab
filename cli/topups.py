"""Prints the top-ups that need manual review, and the blocks after declined cards, one line for each on stdout."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

import typer

from cli.admin_client import AdminEndpoint, NoResultError, stream_reports


class ReviewResult(IntEnum):
    """Result of a command that prints a list or changes one item, used as the exit code."""

    LIST_EMPTY = 0
    """The list is empty, or the change was made."""
    LIST_NOT_EMPTY = 1
    UNKNOWN = 2
    """The service or its database is down, or the item is not in the list."""


def list_reviews(admin: AdminEndpoint, *, after_restore: bool = False) -> ReviewResult:
    """Print the top-ups that the card service cannot finish automatically, each with the reason.

    Args:
        admin: the admin interface of card.
        after_restore: first add the completed top-ups whose deposit the ledger lacks, and remove those whose deposit
            the ledger has again.
    """
    summary = "top-ups need manual review"
    if after_restore:
        return _print_list(admin, "POST", "/review/deposits", "top_up", _format_top_up, summary)
    return _print_list(admin, "GET", "/review", "top_up", _format_top_up, summary)


def retry_top_up(admin: AdminEndpoint, top_up_id: UUID) -> ReviewResult:
    """Schedule another attempt of the step at which a top-up stopped, and print the top-up."""
    try:
        top_up, _ = stream_reports("POST", admin, f"/review/{top_up_id}/retry")
    except NoResultError as error:
        typer.echo(f"not retried: {error}")
        return ReviewResult.UNKNOWN
    typer.echo(f"retried: {_format_top_up(top_up['top_up'])}")
    return ReviewResult.LIST_EMPTY


def list_blocks(admin: AdminEndpoint) -> ReviewResult:
    """Print the customers, addresses and cards that are blocked after too many declined cards."""
    return _print_list(admin, "GET", "/declines", "block", _format_block, "limits of declined cards are reached")


def lift_block(admin: AdminEndpoint, block_id: str) -> ReviewResult:
    """End the block with this id. The declined cards that caused the block no longer count for this kind of limit."""
    try:
        (report,) = stream_reports("POST", admin, f"/declines/{quote(block_id)}/lift")
    except NoResultError as error:
        typer.echo(f"not lifted: {error}")
        return ReviewResult.UNKNOWN
    typer.echo(f"lifted: {block_id}, {report['declines']} declines no longer count")
    return ReviewResult.LIST_EMPTY


def _print_list(
    admin: AdminEndpoint,
    method: Literal["GET", "POST"],
    path: str,
    name: str,
    describe: Callable[[dict[str, Any]], str],
    summary: str,
) -> ReviewResult:
    """Print each item of a list, then their number.

    Args:
        admin: the admin interface of card.
        method: method of the route.
        path: path of the route. The last line of the response has the number of items, under the plural of `name`.
        name: key of the item in each line of the response.
        describe: returns the text of an item.
        summary: text after the number.
    """
    try:
        for report in stream_reports(method, admin, path):
            if (count := report.get(f"{name}s")) is not None:
                typer.echo(f"{count:,} {summary}")
                return ReviewResult.LIST_NOT_EMPTY if count else ReviewResult.LIST_EMPTY
            typer.echo(describe(report[name]))
    except NoResultError as error:
        typer.echo(f"unknown: {error}")
        return ReviewResult.UNKNOWN
    typer.echo(f"unknown: {admin} closed the stream before the end")
    return ReviewResult.UNKNOWN


def _format_block(block: dict[str, Any]) -> str:
    subject = f" {block['subject']}" if block["subject"] else ""
    customers = "" if block["limit"] == "customer" else f", customers: {', '.join(block['customers']) or 'none'}"
    return (
        f"{block['id']}: {block['limit']}{subject}, {block['declines']} declines of {block['maximum']}, "
        f"for {block['seconds']} more seconds{customers}"
    )


def _format_top_up(top_up: dict[str, Any]) -> str:
    step = f" at {top_up['step']}" if top_up["step"] else ""
    failure = f", {top_up['failure']}" if top_up["failure"] else ""
    payment = f", payment {top_up['payment_id']}" if top_up["payment_id"] else ""
    reason = f": {top_up['review']}" if top_up["review"] else ""
    return (
        f"{top_up['id']} {top_up['amount']} {top_up['currency']} to {top_up['account_id']}, "
        f"{top_up['status']}{step}{failure}{payment}{reason}"
    )
