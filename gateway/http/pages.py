"""The pages that people look at: GraphiQL and the REST reference. Everything they load is served from here."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
VENDOR: Final = Path(__file__).parents[1] / "vendor"
"""Unmodified releases, each in a folder of its name and version, with its licence."""

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


def policy(page: str) -> str:
    """The Content-Security-Policy of a page: scripts from here and the page's own, known by their hashes; nothing from
    anywhere else, and nowhere else to send what the page knows. Styles may be inline, which both pages' libraries need.
    """
    own = " ".join(f"'sha256-{_digest(script)}'" for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL))
    return (
        f"default-src 'none'; script-src 'self' {own}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
