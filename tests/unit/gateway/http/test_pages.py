"""Static files: content, validators, and clients that do not read."""

from typing import Any

import pytest
import yaml
from fastapi import FastAPI

from gateway.http import pages
from tests.unit.gateway.http.asgi import http_client
from tests.unit.kit.http.virtual_server import run, virtual_server

ASSET = "/assets/graphiql-3.8.3/graphiql.min.js"
CONTENT = (pages.VENDOR / "graphiql-3.8.3" / "graphiql.min.js").read_bytes()


def build_app() -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    pages.add_pages(app)
    return app


async def test_each_asset_is_served_from_memory_with_its_headers() -> None:
    files = [path for path in pages.VENDOR.rglob("*") if path.is_file()]
    assert files
    async with http_client(build_app()) as http:
        for path in files:
            url = f"/assets/{path.relative_to(pages.VENDOR).as_posix()}"
            response = await http.get(url, headers={"Accept-Encoding": "identity"})
            assert (response.status_code, response.content) == (200, path.read_bytes())
            assert response.headers["content-length"] == str(path.stat().st_size)
            assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        script, style = await http.get(ASSET), await http.get(ASSET.replace(".js", ".css"))
        assert script.headers["content-type"].split(";")[0] in {"text/javascript", "application/javascript"}
        assert style.headers["content-type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize(("name", "media_type"), [("yaml", "application/yaml"), ("json", "application/json")])
async def test_openapi_document_is_served_with_its_type(name: str, media_type: str) -> None:
    (content,) = (file.read_bytes() for file in pages.OPENAPI if file.suffix == f".{name}")
    async with http_client(build_app()) as http:
        response = await http.get(f"/openapi.{name}")
        assert (response.headers["content-type"], response.content) == (media_type, content)
        assert (await http.post(f"/openapi.{name}")).status_code == 405


async def test_openapi_document_is_the_same_in_json_and_yaml() -> None:
    async with http_client(build_app()) as http:
        as_json, as_yaml = [await http.get(f"/openapi.{suffix}") for suffix in ("json", "yaml")]
        assert as_json.json() == yaml.safe_load(as_yaml.text)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip", "gzip"), ("br, GZIP;q=0.5", "gzip"), ("gzip;q=0", None), ("gzip; q=0.0", None), ("br", None), ("", None)],
)
async def test_large_file_is_compressed_for_clients_that_accept_it(accepted: str, coding: str | None) -> None:
    async with http_client(build_app()) as http:
        got, head = [
            await http.request(method, ASSET, headers={"Accept-Encoding": accepted}) for method in ("GET", "HEAD")
        ]
        assert (got.content, got.headers.get("content-encoding")) == (CONTENT, coding)
        assert (int(got.headers["content-length"]) < len(CONTENT) / 2) == (coding == "gzip")
        assert (head.headers["content-length"], head.content) == (got.headers["content-length"], b"")
        assert got.headers["vary"] == "Accept-Encoding"


async def test_small_file_is_not_compressed() -> None:
    app = pages.StaticFile(b"x" * 1000, "text/plain")
    async with http_client(app) as http:
        assert "content-encoding" not in (await http.get("/", headers={"Accept-Encoding": "gzip"})).headers


@pytest.mark.parametrize("tag", ["{0}", "W/{0}", '"other", {0}', "*"])
async def test_content_that_the_client_has_is_not_sent_again(tag: str) -> None:
    async with http_client(build_app()) as http:
        etag = (await http.get(ASSET)).headers["etag"]
        response = await http.get(ASSET, headers={"If-None-Match": tag.format(etag.removeprefix("W/"))})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert (await http.get(ASSET, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_response_to_head_has_no_content() -> None:
    async with http_client(build_app()) as http:
        response = await http.head(ASSET, headers={"Accept-Encoding": "identity"})
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/assets/", 404),
        ("GET", "/assets/nothing", 404),
        ("GET", "/assets/graphiql-3.8.3", 404),
        ("GET", "/assets/../pages.py", 404),
        ("GET", "/assets/%2e%2e/http/pages.py", 404),
        ("POST", ASSET, 405),
    ],
)
async def test_only_assets_are_served(method: str, path: str, status: int) -> None:
    async with http_client(build_app()) as http:
        assert (await http.request(method, path)).status_code == status


def test_few_slices_of_an_asset_are_buffered_for_a_client_that_does_not_read() -> None:
    async def check() -> None:
        app: Any = build_app()
        async with virtual_server(app) as server:
            client = server.connect()
            client.transport.is_client_reading = False
            client.send(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % ASSET.encode())
            await client.settle()
            assert 64 * 1024 < client.transport.most_buffered < 3 * 64 * 1024
            client.transport.is_client_reading = True
            client.transport.flush()
            await client.wait(10)
            assert client.received.endswith(CONTENT)

    run(check)
