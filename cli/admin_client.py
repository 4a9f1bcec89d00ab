"""Client of a service's admin interface: streams the JSON lines that a long-running admin call reports."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx
import typer

_AUTHORIZATION_STATUSES: Final = (401, 403)
_ADVICE: Final = "; pass an admin's token with --token or WALLET_TOKEN"
_JSON_LINES: Final = "application/x-ndjson"
_TIMEOUT: Final = httpx.Timeout(5.0, read=90.0)
"""In seconds. Reads may take 90 s: an integrity check reports nothing during its longest statement, which takes up to a
minute."""


class NoResultError(Exception):
    """The service refused the call, did not respond, or closed the stream before the result. The message says which."""


@dataclass(frozen=True, slots=True)
class AdminEndpoint:
    """Address of a service's admin interface, and the bearer token for it; an empty token is not sent."""

    url: str
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.url


def stream_reports(
    method: Literal["GET", "POST"], admin: AdminEndpoint, path: str, parameters: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield each JSON line of the response as it arrives. The last line of a complete stream is the result.

    Raises:
        NoResultError: the service cannot be reached, refuses the call, breaks the connection, or sends no JSON lines.
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
            if response.headers.get("content-type") != _JSON_LINES:
                response.read()
                advice = _ADVICE if response.status_code in _AUTHORIZATION_STATUSES else ""
                raise NoResultError(f"{admin} responds with {response.status_code}: {_error_detail(response)}{advice}")
            yield from map(_parse_report, response.iter_lines())
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:  # UnicodeEncodeError: a non-ASCII token
        raise NoResultError(f"no response from {admin}: {error or type(error).__name__}") from error


def _parse_report(line: str) -> dict[str, Any]:
    try:
        report = json.loads(line)
    except ValueError:
        report = None
    if not isinstance(report, dict):
        raise NoResultError("the response is not from a wallet service: correct --admin")
    return report


class ProgressLine:
    """Progress on stderr, one line for each part of the work.

    A terminal shows each update of a line. A file gets only the last state of each line.
    """

    def __init__(self) -> None:
        self._rewrites = sys.stderr.isatty()
        self._part = self._line = ""

    def show(self, part: str, line: str) -> None:
        """Show the progress of a part. When a new part starts, the line of the previous part is finished."""
        if part != self._part:
            self.finish()
        self._part, self._line = part, line
        if self._rewrites:
            width = shutil.get_terminal_size().columns - 1
            typer.echo(f"\r{self._line[:width]}\033[K", nl=False, err=True)

    def finish(self) -> None:
        """End the current line. Safe to repeat."""
        if self._line:
            typer.echo("" if self._rewrites else self._line, err=True)
        self._line = ""


def _error_detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, LookupError, TypeError):
        return response.reason_phrase
