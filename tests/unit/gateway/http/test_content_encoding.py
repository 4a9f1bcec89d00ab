"""Content codings of request bodies, and the media type that a body must have."""

import asyncio
import gzip
import random
import zlib
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import content_encoding
from gateway.http.media_types import is_utf8_json
from tests.conftest import Keys
from tests.unit.gateway.http.asgi import echo, http_client, with_middleware
from wallet.errors import InvalidInput

LIMIT = 1_000
BODY = b'{"amount":"1.00"}'


async def post(keys: Keys, body: Any, coding: str = "gzip", **headers: str) -> httpx.Response:
    async with http_client(with_middleware(echo, keys, body_limit_bytes=LIMIT)) as http:
        return await http.post("/", content=body, headers={"Content-Encoding": coding, **headers})


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "identity, gzip", " gzip ,"])
async def test_gzip_body_is_decoded(keys: Keys, coding: str) -> None:
    response = await post(keys, gzip.compress(BODY), coding)
    assert (response.status_code, response.text) == (200, f"anonymous: {BODY.decode()}")


async def test_gzip_body_that_arrives_in_pieces_is_decoded(keys: Keys) -> None:
    async def pieces() -> Any:
        for byte in gzip.compress(BODY):
            yield bytes([byte])

    assert (await post(keys, pieces())).text == f"anonymous: {BODY.decode()}"


@pytest.mark.parametrize("coding", ["", "identity", ","])
async def test_body_without_a_coding_is_passed_on(keys: Keys, coding: str) -> None:
    assert (await post(keys, BODY, coding)).text == f"anonymous: {BODY.decode()}"


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip", "gzip, br", "utf-8", "compress"])
async def test_other_codings_are_refused_and_the_supported_one_is_named(keys: Keys, coding: str) -> None:
    response = await post(keys, gzip.compress(BODY), coding)
    assert (response.status_code, response.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert response.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        b"",
        zlib.compress(BODY),
        gzip.compress(BODY)[:-1],
        gzip.compress(BODY)[:12],
        gzip.compress(BODY)[:-8] + bytes(8),  # another checksum and length
        gzip.compress(BODY) + b"x",
        gzip.compress(BODY) + gzip.compress(b""),
    ],
    ids=["plain", "empty", "zlib", "no end", "head", "checksum", "trailing byte", "second member"],
)
async def test_body_that_is_not_one_gzip_member_is_refused(keys: Keys, body: bytes) -> None:
    response = await post(keys, body)
    assert (response.status_code, [field["field"] for field in response.json()["fields"]]) == (400, ["body"])


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (100_000, 413)])
async def test_limit_applies_to_the_decoded_size(keys: Keys, size: int, status: int) -> None:
    assert (await post(keys, gzip.compress(b"x" * size))).status_code == status


async def test_limit_applies_to_the_encoded_size(keys: Keys) -> None:
    stored = gzip.compress(b"x" * (LIMIT - 10), compresslevel=0)
    assert len(stored) > LIMIT
    assert (await post(keys, stored)).json()["code"] == "CONTENT_TOO_LARGE"


async def test_bomb_is_decoded_up_to_the_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    new_decoder = zlib.decompressobj

    class Decoder:
        eof = False

        def __init__(self, wbits: int) -> None:
            self._decoder = new_decoder(wbits)

        def decompress(self, data: bytes, max_length: int) -> bytes:
            body = self._decoder.decompress(data, max_length)
            sizes.append(len(body))
            return body

    monkeypatch.setattr(zlib, "decompressobj", Decoder)
    assert await content_encoding._decode(gzip.compress(bytes(5_000_000)), LIMIT) is None
    assert sizes == [LIMIT + 1]


async def test_other_tasks_run_while_a_body_is_decoded() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    content = bytes(random.Random(0).choices(range(256), k=60_000))
    other = asyncio.create_task(count_turns())
    assert await content_encoding._decode(gzip.compress(content), 60_000) == content
    other.cancel()
    assert turns == 60_000 // 8_192


@given(data=st.binary(max_size=300), slice_bytes=st.integers(1, 400))
def test_decoding_returns_the_content_or_raises_invalid_input(data: bytes, slice_bytes: int) -> None:
    def decode(encoded: bytes) -> bytes | None:
        return asyncio.run(content_encoding._decode(encoded, 300))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_encoding, "_SLICE_BYTES", slice_bytes)
        assert decode(gzip.compress(data)) == data
        for wrong in (data, gzip.compress(data)[:-1], gzip.compress(data) + b"x"):
            with pytest.raises(InvalidInput):
                decode(wrong)


async def test_decoded_request_has_the_headers_of_a_plain_one(keys: Keys) -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    async with http_client(with_middleware(app, keys, body_limit_bytes=LIMIT)) as http:
        await http.post("/", content=gzip.compress(BODY), headers={"Content-Encoding": "gzip", "X-Other": "kept"})
    headers = dict(scopes[0]["headers"])
    assert (headers[b"content-length"], headers[b"x-other"]) == (b"%d" % len(BODY), b"kept")
    assert b"content-encoding" not in headers


async def test_coding_of_a_request_without_a_body_is_ignored(keys: Keys) -> None:
    async with http_client(with_middleware(echo, keys)) as http:
        assert (await http.get("/", headers={"Content-Encoding": "utf-8"})).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("Application/JSON", True),
        ("application/json; charset=utf-8", True),
        ('application/json;charset="UTF-8"', True),
        ("application/json ;charset=utf8; profile=x", True),
        ("application/json;", True),
        ("", False),
        ("text/plain", False),
        ("application/json-patch", False),
        ("application/x-www-form-urlencoded", False),
        ("application/json; charset=latin-1", False),
        ("application/json; charset=utf-16", False),
        ("application/json; charset=", False),
        ("application/json; CHARSET = utf-7", False),
        ("application/json; charset=utf-8; charset=utf-16", False),
        ("application/json,text/plain", False),
        ("text/plain, application/json", False),
        ("application/json; a=b, text/plain", False),
    ],
)
def test_only_json_in_utf_8_is_accepted(content_type: str, *, is_json: bool) -> None:
    assert is_utf8_json(content_type) is is_json
