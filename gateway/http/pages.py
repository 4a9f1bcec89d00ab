"""Pages for browsers: GraphiQL and the REST reference. All their scripts and styles are served by the gateway."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

ROOT: Final = Path(__file__).parents[2]
VENDOR: Final = Path(__file__).parents[1] / "vendor"
"""Unmodified releases of third-party scripts, one folder per name and version, each with its licence."""

OPENAPI: Final = ROOT / "openapi" / "openapi.yaml"

GRAPHIQL: Final = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>Wallet · GraphiQL</title>
  <link rel="stylesheet" href="/assets/graphiql-3.8.3/graphiql.min.css">
  <style>html, body, #graphiql { height: 100%; margin: 0; }</style>
</head>
<body>
  <div id="graphiql"></div>
  <script src="/assets/react-18.3.1/react.production.min.js"></script>
  <script src="/assets/react-dom-18.3.1/react-dom.production.min.js"></script>
  <script src="/assets/graphiql-3.8.3/graphiql.min.js"></script>
  <script>
    const url = location.origin + location.pathname;
    const query = `# Put a token into the Headers pane below: make -s token USER=alice
query Account {
  account(id: "123e4567-e89b-12d3-a456-426614174000") {
    balance { amount currency }
    operations(first: 10) {
      edges { node { type direction amount { amount currency } counterparty { id } occurredAt } }
    }
  }
}

mutation Transfer {
  transferMoney(input: {
    senderId: "123e4567-e89b-12d3-a456-426614174000"
    recipientId: "987e6543-e21b-34d3-c456-426614174999"
    amount: "10.00"
    idempotencyKey: "first"
  }) {
    ... on TransferMoneySuccess { transfer { id } balance { amount } }
    ... on Error { code message }
  }
}

subscription Live {
  operationAdded(accountId: "123e4567-e89b-12d3-a456-426614174000") {
    direction amount { amount currency } balanceAfter { amount }
  }
}
`;
    ReactDOM.createRoot(document.getElementById("graphiql")).render(
      React.createElement(GraphiQL, {
        fetcher: GraphiQL.createFetcher({ url, subscriptionUrl: url.replace(/^http/, "ws") }),
        defaultQuery: query,
        defaultHeaders: '{\\n  "Authorization": "Bearer "\\n}',
        defaultEditorToolsVisibility: "headers",
      }),
    );
  </script>
</body>
</html>
"""

REST_DOCS: Final = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>Wallet · REST API</title>
  <link rel="stylesheet" href="/assets/swagger-ui-dist-5.35.0/swagger-ui.css">
</head>
<body>
  <div id="reference"></div>
  <script src="/assets/swagger-ui-dist-5.35.0/swagger-ui-bundle.js"></script>
  <script>SwaggerUIBundle({ url: "/openapi.yaml", dom_id: "#reference", persistAuthorization: true });</script>
</body>
</html>
"""


def add_pages(app: FastAPI) -> None:
    """Add the REST reference, the OpenAPI document and the static assets. The GraphQL endpoint serves GraphiQL."""
    headers = {"Content-Security-Policy": content_security_policy(REST_DOCS)}

    @app.get("/docs")
    async def get_docs() -> HTMLResponse:
        return HTMLResponse(REST_DOCS, headers=headers)

    @app.get("/openapi.yaml")
    async def get_openapi() -> FileResponse:
        return FileResponse(OPENAPI, media_type="application/yaml")

    app.mount("/assets", _ImmutableFiles(directory=VENDOR))


class _ImmutableFiles(StaticFiles):
    """Static files that browsers cache for a year. A file never changes, because its path has a version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def content_security_policy(page: str) -> str:
    """Build the Content-Security-Policy of a page.

    Scripts: those of this origin, and the page's inline scripts by their hashes. Connections: this origin only. Inline
    styles are allowed, because the libraries of both pages need them.
    """
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
