"""What a service tells line by line while it works, on its admin interface."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx
import typer

_NOT_ADMITTED: Final = (401, 403)
_ADVICE: Final = "; give an admin's token by --token or WALLET_TOKEN"
_LINES: Final = "application/x-ndjson"
_TIMEOUT: Final = httpx.Timeout(5.0, read=90.0)
"""The longest statement of a proof may take a minute, in which nothing is heard of it."""


class NoAnswerError(Exception):
    """The service does not do it, or did not come to its end. The message is for people, and says why."""


@dataclass(frozen=True, slots=True)
class Admin:
    """A service's admin interface, and by what token it is asked; without one, there is nothing to show."""

    url: str
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.url


def reports(
    method: Literal["GET", "POST"], admin: Admin, path: str, parameters: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Each line as it comes; a service's last word is the one that is no progress and nothing found.

    Raises:
        NoAnswerError: nobody is there, it refuses, or it broke off.
    """
    try:
        with httpx.stream(
            method,
            f"{admin}{path}",
            params=parameters,
            headers={"Authorization": f"Bearer {admin.token}"} if admin.token else {},
            timeout=_TIMEOUT,
            trust_env=False,
        ) as response:
            if response.headers.get("content-type") != _LINES:
                response.read()
                advice = _ADVICE if response.status_code in _NOT_ADMITTED else ""
                raise NoAnswerError(f"{admin} answers {response.status_code}: {_detail(response)}{advice}")
            yield from map(json.loads, response.iter_lines())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswerError(f"{admin} does not answer, or no longer: {error or type(error).__name__}") from error


class Meter:
    """One line on a terminal, rewritten as the work goes on; elsewhere a line for each part of it, at its end."""

    def __init__(self) -> None:
        self._rewrites = sys.stderr.isatty()
        self._part = self._line = ""

    def show(self, part: str, line: str) -> None:
        """How far a part of the work has come."""
        if part != self._part:
            self.finish()
        self._part, self._line = part, line
        if self._rewrites:
            width = shutil.get_terminal_size().columns - 1
            typer.echo(f"\r{self._line[:width]}\033[K", nl=False, err=True)

    def finish(self) -> None:
        """The end of the line."""
        if self._line:
            typer.echo("" if self._rewrites else self._line, err=True)
        self._line = ""


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, LookupError, TypeError):
        return response.reason_phrase
