"""The only use of a private attribute of Starlette."""

from typing import Any

from starlette.requests import Request


def set_parsed_body(request: Request, value: Any) -> None:
    """Set the value that `request.json()` returns, so FastAPI does not parse the body a second time.

    Starlette caches the parsed body in `_json`. If a release of Starlette ignores the attribute, requests still work,
    but each body is parsed a second time, leniently. `tests/unit/gateway/rest/test_starlette_internals.py` then fails.
    """
    request._json = value  # noqa: SLF001
