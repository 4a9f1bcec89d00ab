"""Types of command-line options. Each rejects an invalid value with a message that names the valid values."""

import argparse
import math
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from kit.runtime.server_urls import InvalidUrl, parse_postgres_url
from loadtests.scenarios import NAMES

InvalidOption = argparse.ArgumentTypeError
"""The text is no valid value; the message names the valid values."""

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)([smh]?)", re.ASCII)
_BARE_IPV6: Final = re.compile(r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")
_MAX_SECONDS: Final = 24 * 3600.0


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a type for whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            limit = f"at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is invalid: must be a whole number, {limit}")
        return value

    return parse


def positive_number(text: str) -> float:
    """Parse a number that is more than 0 and finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is invalid: must be a number more than 0")
    return value


def optional_grpc_target(text: str) -> str:
    """Check that the text is empty or a gRPC target with a port."""
    return grpc_target(text) if text else ""


def rate(text: str) -> float:
    """Parse an arrival rate: a positive number, or 0 for a closed loop."""
    return 0.0 if text in {"0", "0.0"} else positive_number(text)


def seed(text: str) -> str:
    """Check that the text is a whole number, or empty for a random seed."""
    return str(whole_number(0)(text)) if text else ""


def scenarios(text: str) -> str:
    """Check names of scenarios, separated by commas; `all` means each of them."""
    names = NAMES if text == "all" else tuple(text.split(","))
    if unknown := set(names) - set(NAMES):
        raise InvalidOption(f"unknown scenario: {', '.join(unknown)}; choose from {', '.join(NAMES)}, or all")
    return ",".join(names)


def duration(text: str) -> float:
    """Parse `90`, `90s`, `5m` or `2h` to seconds."""
    match = _TIME.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is invalid: must be a time such as 90s, 5m or 2h, at most 24h")
    return seconds


def http_url(text: str) -> str:
    """Parse the address of an HTTP server; the result has no slash at its end."""
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or the IPv6 address is malformed
        is_valid = False
    if not is_valid or parts.query or parts.fragment or re.search(r"\s", text):
        raise argparse.ArgumentTypeError(f"{text!r} is invalid: must be a URL such as https://wallet.example")
    return text.rstrip("/")


def postgres_url(text: str) -> str:
    """Check that the text is the URL of a PostgreSQL database.

    Messages do not quote the URL, because it may contain a password.
    """
    try:
        parse_postgres_url(text)
    except InvalidUrl as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def grpc_target(text: str) -> str:
    """Check that the text is a gRPC target with a port."""
    host, _, port = text.rpartition(":")
    if not host or _BARE_IPV6.fullmatch(host) or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        examples = "bank:50051 or [::1]:50051"
        raise argparse.ArgumentTypeError(f"{text!r} is invalid: must be an address with a port, such as {examples}")
    return text
