"""`python -m asyncapi.register URL`: put the Avro schemas of the events into a schema registry.

The registry must have the API of Confluent's, which Karapace, Redpanda and Apicurio (at `/apis/ccompat/v7`) have too. A
subject is the full name of an event's record, as in the strategy RecordNameStrategy: the topic has several event types.
A repeat has no effect. The command first sets the subject's compatibility to FORWARD_TRANSITIVE: a reader with an older
schema can read all newer events, which is what the contract promises.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

import httpx

COMPATIBILITY: Final = "FORWARD_TRANSITIVE"

_FOLDER: Final = Path(__file__).parent / "avro"
_CONTENT_TYPE: Final = {"Content-Type": "application/vnd.schemaregistry.v1+json"}


class RegistrationError(Exception):
    """The registry refused a schema or cannot be reached. The message says which one and why."""


def register(registry: httpx.Client) -> dict[str, int]:
    """Register all schemas, and return the id of each schema by its subject.

    Args:
        registry: HTTP client whose base URL is that of the registry's API.

    Raises:
        RegistrationError: the registry refused a request, for example because a schema is not compatible.
    """
    ids = {}
    for file in sorted(_FOLDER.glob("*.avsc")):
        schema = json.loads(file.read_text())
        subject = f"{schema['namespace']}.{schema['name']}"
        _send(registry, "PUT", f"/config/{subject}", {"compatibility": COMPATIBILITY})
        ids[subject] = _send(registry, "POST", f"/subjects/{subject}/versions", {"schema": json.dumps(schema)})["id"]
    return ids


def _send(registry: httpx.Client, method: str, path: str, body: dict[str, str]) -> dict[str, int]:
    try:
        response = registry.request(method, path, json=body, headers=_CONTENT_TYPE)
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        raise RegistrationError(f"{method} {path}: {error.response.status_code} {error.response.text[:500]}") from None
    except httpx.HTTPError as error:
        raise RegistrationError(f"{method} {path}: no response ({error}): check the URL") from None
    answer: dict[str, int] = response.json()
    return answer


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m asyncapi.register", description=__doc__)
    parser.add_argument("url", help="base URL of the registry's API, such as http://127.0.0.1:8081")
    with httpx.Client(base_url=parser.parse_args().url, timeout=10) as registry:
        try:
            ids = register(registry)
        except RegistrationError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    for subject, id_ in ids.items():
        sys.stdout.write(f"{subject}: {id_}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
