"""Holds every REST answer that the tests see against `openapi/openapi.yaml`."""

import re
from pathlib import Path
from typing import Any

import httpx
import yaml
from jsonschema import Draft202012Validator, FormatChecker

SPEC: dict[str, Any] = yaml.safe_load((Path(__file__).parent.parent / "openapi" / "openapi.yaml").read_text())

_PATHS = {re.compile("^" + re.sub(r"\{\w+\}", "[^/]+", path) + "$"): path for path in SPEC["paths"]}
_FORMATS = FormatChecker(formats=["uuid", "date-time"])


def check_response(response: httpx.Response) -> None:
    """Asserts that the contract documents the answer: its status, its headers, its media type and its body.

    Answers on paths that are not in the contract are none of its business.
    """
    path = next((path for pattern, path in _PATHS.items() if pattern.match(response.request.url.path)), None)
    if path is None:
        return
    operation = SPEC["paths"][path].get(response.request.method.lower())
    if operation is None:
        return
    documented = operation["responses"].get(str(response.status_code))
    assert documented, f"{response.request.method} {path} answered {response.status_code}, which is not documented"
    documented = _resolve(documented)
    for name, header in documented.get("headers", {}).items():
        if _resolve(header).get("required"):
            assert name in response.headers, f"{response.status_code} without {name}"
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in documented["content"], f"{media_type} is not documented for {response.status_code}"
    schema = documented["content"][media_type]["schema"] | {"components": SPEC["components"]}
    Draft202012Validator(schema, format_checker=_FORMATS).validate(response.json())


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        reference = node["$ref"].removeprefix("#/").split("/")
        node = SPEC
        for part in reference:
            node = node[part]
    return node


async def check_response_hook(response: httpx.Response) -> None:
    """For httpx's `event_hooks`."""
    await response.aread()
    check_response(response)
