"""Pages for browsers: GraphiQL, the REST reference, and the problem types. The gateway serves their scripts and styles.

Files are read once and served from memory, so a client that does not read its response keeps no file open.
"""

import asyncio
import base64
import gzip
import hashlib
import mimetypes
import re
from functools import cache, lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.http import problem_types
from gateway.http.conditional_reads import has_tag

ROOT: Final = Path(__file__).parents[2]
VENDOR: Final = Path(__file__).parents[1] / "vendor"
"""Unmodified releases of third-party scripts, one folder per name and version, each with its licence."""

OPENAPI: Final = {
    ROOT / "openapi" / "openapi.yaml": "application/yaml",
    ROOT / "openapi" / "openapi.json": "application/json",
}
"""Media type of each file with the REST contract. The file's name is its path."""

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
    """Add the REST reference, the OpenAPI document, the problem types and the static assets.

    The GraphQL endpoint serves GraphiQL.
    """
    headers = {"Content-Security-Policy": content_security_policy(REST_DOCS)}

    @app.get("/docs")
    async def get_docs() -> HTMLResponse:
        return HTMLResponse(REST_DOCS, headers=headers)

    for contract, media_type in OPENAPI.items():
        document = StaticFile(contract.read_bytes(), media_type)
        app.router.routes.append(Route(f"/{contract.name}", document, methods=["GET"]))
    for path, page in problem_types.pages().items():
        file = StaticFile(page.encode(), "text/html; charset=utf-8", policy=content_security_policy(page))
        app.router.routes.append(Route(path, file, methods=["GET"]))
    app.mount("/assets", _Assets(_read_assets()))


class StaticFile:
    """ASGI app that responds to GET and HEAD with content in memory, which all responses share.

    The content is sent in slices, so only a part of it is buffered for a client that does not read. It is compressed
    with gzip when the first client accepts that. Only these public files are compressed: the size of a compressed
    response about a customer could reveal its content to somebody who also chooses a part of it, such as the words of a
    transfer (BREACH).
    """

    def __init__(
        self, content: bytes, media_type: str, cache_control: str | None = None, policy: str | None = None
    ) -> None:
        """Args:
        content: the body.
        media_type: value of `Content-Type`.
        cache_control: value of `Cache-Control`; None: no such header.
        policy: value of `Content-Security-Policy`; None: no such header.
        """
        self._content = memoryview(content)
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        self._validators = [(b"etag", f"W/{self._etag}".encode())]  # weak: the tag of both codings
        if cache_control is not None:
            self._validators.append((b"cache-control", cache_control.encode()))
        self._headers = [(b"content-type", media_type.encode()), (b"vary", b"Accept-Encoding")]
        self._compressed: memoryview | None = None
        if policy is not None:
            self._headers.append((b"content-security-policy", policy.encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002, D102  ASGI
        request = Headers(scope=scope)
        if has_tag(request.get("if-none-match", ""), self._etag):
            start = {"status": int(HTTPStatus.NOT_MODIFIED), "headers": [*self._validators]}
            content = self._content[:0]
        else:
            headers, content = [*self._headers, *self._validators], self._content
            if len(content) >= _MIN_COMPRESSED_BYTES and _accepts_gzip(request.get("accept-encoding", "")):
                headers.append((b"content-encoding", b"gzip"))
                content = await self._compress()
            headers.append((b"content-length", b"%d" % len(content)))
            start = {"status": int(HTTPStatus.OK), "headers": headers}
            if scope["method"] == "HEAD":
                content = content[:0]
        await send({"type": "http.response.start", **start})
        while len(content) > _SLICE_BYTES:
            await send({"type": "http.response.body", "body": content[:_SLICE_BYTES], "more_body": True})
            content = content[_SLICE_BYTES:]
        await send({"type": "http.response.body", "body": content})

    async def _compress(self) -> memoryview:
        """Return the compressed content. It is computed in a thread, because a large file takes 50 ms, and kept."""
        if self._compressed is None:
            self._compressed = memoryview(await asyncio.to_thread(gzip.compress, self._content, mtime=0))
        return self._compressed


@lru_cache(maxsize=64)
def _accepts_gzip(accept_encoding: str) -> bool:
    """Return whether an Accept-Encoding header names gzip, with a quality above zero."""
    for coding in accept_encoding[:_MAX_HEADER_LENGTH].lower().split(","):
        name, _, quality = coding.replace(" ", "").partition(";q=")
        if name in {"gzip", "x-gzip"}:
            return quality.strip("0.") != "" if quality else True
    return False


_MIN_COMPRESSED_BYTES: Final = 1024
_MAX_HEADER_LENGTH: Final = 1_000
_SLICE_BYTES: Final = 64 * 1024


class _Assets:
    """ASGI app of the static assets."""

    def __init__(self, files: dict[str, StaticFile]) -> None:
        """Args:
        files: files by path below the mount.
        """
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise HTTPException(HTTPStatus.NOT_FOUND)
        if scope["method"] not in {"GET", "HEAD"}:
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
        file = self._files.get(scope["path"].removeprefix(scope["root_path"]))
        if file is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        await file(scope, receive, send)


@cache
def _read_assets() -> dict[str, StaticFile]:
    """Read the assets. Browsers cache them for a year: a file never changes, because its path has a version."""
    return {
        f"/{path.relative_to(VENDOR).as_posix()}": StaticFile(
            path.read_bytes(), _media_type(path), "public, max-age=31536000, immutable"
        )
        for path in sorted(VENDOR.rglob("*"))
        if path.is_file()
    }


def _media_type(path: Path) -> str:
    media_type = mimetypes.guess_type(path.name)[0] or "text/plain"
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


def content_security_policy(page: str) -> str:
    """Build the Content-Security-Policy of a page.

    Scripts: those of this origin, and the page's inline scripts by their hashes. Connections: this origin only. Inline
    styles are allowed, because GraphiQL and Swagger UI need them.
    """
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
