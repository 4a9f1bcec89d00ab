"""The Avro schemas go into a schema registry: a stub of its API that parses the schemas, as no registry can be had."""

import json
from typing import Any

import fastavro
import httpx
import pytest

from asyncapi.register import COMPATIBILITY, RegistrationError, register

SUBJECTS = {"wallet.events.TopUpEvent", "wallet.events.TransferEvent"}


class Registry:
    """Stub of the registry's API: subjects with a compatibility and versions; equal schemas have one id."""

    def __init__(self) -> None:
        self.compatibility: dict[str, str] = {}
        self.versions: dict[str, list[str]] = {}
        self._ids: dict[str, int] = {}

    def respond(self, request: httpx.Request) -> httpx.Response:
        """Respond to one request."""
        assert request.headers["content-type"] == "application/vnd.schemaregistry.v1+json"
        body: dict[str, Any] = json.loads(request.content)
        match request.method, request.url.path.split("/")[1:]:
            case "PUT", ["config", subject]:
                self.compatibility[subject] = body["compatibility"]
                return httpx.Response(200, json=body)
            case "POST", ["subjects", subject, "versions"]:
                return self._add(subject, body["schema"])
        return httpx.Response(404, json={"error_code": 404, "message": "HTTP 404 Not Found"})

    def _add(self, subject: str, text: str) -> httpx.Response:
        schema: Any = fastavro.parse_schema(json.loads(text))
        assert schema["name"] == subject
        versions = self.versions.setdefault(subject, [])
        if versions and text != versions[-1]:
            return httpx.Response(409, json={"error_code": 409, "message": "Schema being registered is incompatible"})
        if not versions:
            versions.append(text)
        return httpx.Response(200, json={"id": self._ids.setdefault(text, len(self._ids) + 1)})

    def client(self) -> httpx.Client:
        """Return a client of the stub."""
        return httpx.Client(transport=httpx.MockTransport(self.respond), base_url="http://registry")


def test_each_event_becomes_a_subject_with_forward_compatibility() -> None:
    registry = Registry()
    with registry.client() as client:
        ids = register(client)
    assert ids.keys() == registry.versions.keys() == SUBJECTS
    assert registry.compatibility == dict.fromkeys(SUBJECTS, COMPATIBILITY)


def test_second_registration_adds_no_version() -> None:
    registry = Registry()
    with registry.client() as client:
        assert register(client) == register(client)
    assert {len(versions) for versions in registry.versions.values()} == {1}


def test_refusal_names_the_subject_and_the_reason() -> None:
    registry = Registry()
    registry.versions["wallet.events.TransferEvent"] = ["another schema"]
    with registry.client() as client, pytest.raises(RegistrationError) as caught:
        register(client)
    assert "wallet.events.TransferEvent" in str(caught.value)
    assert "409" in str(caught.value)
    assert "incompatible" in str(caught.value)


def test_unreachable_registry_is_reported() -> None:
    with httpx.Client(base_url="http://127.0.0.1:1") as client, pytest.raises(RegistrationError, match="check the URL"):
        register(client)
