"""Parsers of command-line options. Each refuses an invalid value with a message that says what to write."""

from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import typer

from cli.tokens import SeedUser

_EXAMPLE_ID: Final = "01a1fe03-284b-738c-94f7-1a15f0c9e352"
_BLOCK_KINDS: Final = ("customer", "address", "card")


def parse_id(text: str) -> UUID:
    """Parse the id of an account or of a top-up."""
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an id: write a UUID such as {_EXAMPLE_ID}") from None


def parse_user(text: str) -> SeedUser:
    """Parse the name of a seeded user."""
    try:
        return SeedUser(text)
    except ValueError:
        raise typer.BadParameter(f"there is no seeded user {text!r}: choose one of {', '.join(SeedUser)}") from None


def parse_port(text: str) -> int:
    """Parse a port. `Ports.derive` checks its range."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a port: write a number such as 8000") from None


def parse_admin(text: str) -> str:
    """Parse an admin address; the result has no slash at its end."""
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or the IPv6 address is malformed
        is_valid = False
    if not is_valid or parts.query or parts.fragment:
        raise typer.BadParameter(f"{text!r} is not an admin address: write a URL such as http://127.0.0.1:9101")
    return text.rstrip("/")


def parse_named_admin(text: str) -> tuple[str, str]:
    """Parse the name of a service and its admin address, as in `bank=http://127.0.0.1:9101`."""
    name, equals, address = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"write {text!r} as name=address, such as bank=http://127.0.0.1:9101")
    return name, parse_admin(address)


def parse_block(text: str) -> str:
    """Parse the id of a block after declined cards, such as `customer/01a1…`."""
    kind, _, attempt = text.partition("/")
    try:
        if kind in _BLOCK_KINDS:
            return f"{kind}/{UUID(attempt)}"
    except ValueError:
        pass
    raise typer.BadParameter(
        f"{text!r} is not the id of a block: write one from the list of `wallet topups declines`, such as "
        f"customer/{_EXAMPLE_ID}"
    )
