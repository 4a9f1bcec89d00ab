"""Validation of responses against the contracts in `openapi/`."""

import re
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from jsonschema import Draft202012Validator, FormatChecker

_FOLDER: Final = Path(__file__).parent.parent / "openapi"
_FORMATS: Final = FormatChecker(formats=["uuid", "date-time"])


class Contract:
    """One OpenAPI document."""

    def __init__(self, file: str) -> None:
        self._spec: dict[str, Any] = yaml.safe_load((_FOLDER / file).read_text())
        self._paths = {re.compile("^" + re.sub(r"\{\w+\}", "[^/]+", path) + "$"): path for path in self._spec["paths"]}

    def check(self, response: httpx.Response) -> None:
        """Assert that the contract documents the response: status, headers, media type and body.

        Responses to requests that are not in the contract are ignored.
        """
        path = next((path for pattern, path in self._paths.items() if pattern.match(response.request.url.path)), None)
        if path is None:
            return
        operation = self._spec["paths"][path].get(response.request.method.lower())
        if operation is None:
            return
        documented = operation["responses"].get(str(response.status_code))
        assert documented, f"{response.request.method} {path} returned {response.status_code}, which is not documented"
        documented = self._resolve(documented)
        for name, header in documented.get("headers", {}).items():
            if self._resolve(header).get("required"):
                assert name in response.headers, f"{response.status_code} without {name}"
        if "content" not in documented:
            assert not response.content, f"{response.status_code} with a body"
            assert "content-type" not in response.headers
            return
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in documented["content"], f"{media_type} is not documented for {response.status_code}"
        self._validate(documented["content"][media_type]["schema"], response.json())

    def operations(self) -> list[tuple[str, str]]:
        """Return each operation's method, in capital letters, and its path, with placeholders."""
        return [
            (method.upper(), path)
            for path, item in self._spec["paths"].items()
            for method in item
            if method in {"get", "post", "put", "patch", "delete"}
        ]

    async def check_hook(self, response: httpx.Response) -> None:
        """Check a response as an httpx event hook."""
        await response.aread()
        self.check(response)

    def check_schema(self, name: str, body: Any) -> None:
        """Assert that the body matches a schema of the contract."""
        self._validate(self._spec["components"]["schemas"][name], body)

    def parameter_schema(self, name: str) -> dict[str, Any]:
        """Return the schema of a shared parameter."""
        schema: dict[str, Any] = self._spec["components"]["parameters"][name]["schema"]
        return schema

    def _validate(self, schema: dict[str, Any], body: Any) -> None:
        whole = schema | {"components": self._spec["components"]}
        Draft202012Validator(whole, format_checker=_FORMATS).validate(body)

    def _resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            reference = node["$ref"].removeprefix("#/").split("/")
            node = self._spec
            for part in reference:
                node = node[part]
        return node


REST: Final = Contract("openapi.yaml")
ACQUIRER: Final = Contract("acquirer.yaml")
