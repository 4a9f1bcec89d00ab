"""ClickHouse in one process: the chDB engine behind ClickHouse's HTTP interface.

Usage: `python -m stack.engines.clickhouse --port P --data DIR`. Clients of clickhouse-connect work unchanged: queries
with parameters, inserts in any format, compressed requests and responses, settings, errors. A response is held in
memory as a whole; there are no users and no sessions. Only one process can open a chDB store, so clients use HTTP.
"""

import argparse
import asyncio
import contextlib
import email
import gzip
import json
import os
import re
import uuid
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import chdb
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

Codec = Callable[[bytes], bytes]
COMPRESS: dict[str, Codec] = {"gzip": gzip.compress, "deflate": zlib.compress}
EXPAND: dict[str, Codec] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
with contextlib.suppress(ImportError):  # optional, as in clickhouse-connect
    from lz4 import frame  # type: ignore[import-untyped]  # it ships no types

    COMPRESS["lz4"], EXPAND["lz4"] = frame.compress, frame.decompress
with contextlib.suppress(ImportError):
    from backports import zstd

    COMPRESS["zstd"], EXPAND["zstd"] = zstd.compress, zstd.decompress

# An INSERT whose rows follow the statement. Other statements, such as INSERT … VALUES, are passed on as text.
INSERT = re.compile(rb"\s*(INSERT\s+INTO\s.*?)\sFORMAT\s+(\w+)[ \t]*(?:\r?\n|;|$)", re.IGNORECASE | re.DOTALL)
READ = re.compile(rb"\s*\(*\s*(SELECT|WITH|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN)\b", re.IGNORECASE)
SETTING = re.compile(r"[a-z][a-z0-9_]*")
# URL parameters that are not settings of the engine.
REQUEST_PARAMETERS = {
    *("database", "default_format", "query", "query_id", "user", "password", "quota_key", "role"),
    *("session_id", "session_timeout", "session_check", "client_protocol_version"),
    *("enable_http_compression", "compress", "decompress", "buffer_size", "wait_end_of_query"),
    *("send_progress_in_http_headers", "http_headers_progress_interval_ms"),
}
NOT_FOUND = {16, 46, 47, 60, 81, 115}  # no such column, function, identifier, table, database, setting
BAD_REQUEST = {6, 26, 27, 41, 53, 62, 69, 72, 117, 395, 456, 457}  # syntax, types, values, missing parameters


class QueryResult(NamedTuple):
    """Result of a statement in the requested format, and its statistics."""

    body: bytes
    summary: Mapping[str, int]


class Engine:
    """The open store. Each statement has its own connection, so its settings and database affect no other statement."""

    def __init__(self, folder: Path) -> None:
        """Open the store in `folder`, created if missing. Only one process at a time can open it."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = str(folder)
        self._open = _connect(self._path)  # keeps the engine loaded
        self._workers = ThreadPoolExecutor(16, "query")
        self.timezone = self._open.query("SELECT timezone()", "TabSeparated").bytes().decode().strip()

    async def execute(self, statement: bytes, parameters: Mapping[str, str], options: Mapping[str, str]) -> QueryResult:
        """Run one statement. Statements run concurrently.

        Args:
            statement: the text, followed by the rows for an INSERT … FORMAT.
            parameters: values for `{name:Type}`, in the form of the HTTP interface.
            options: URL parameters: database, default_format and settings.

        Raises:
            RuntimeError: the engine's error message, `Code: N. DB::Exception: …`.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, self._execute, statement, parameters, options)

    def _execute(self, statement: bytes, parameters: Mapping[str, str], options: Mapping[str, str]) -> QueryResult:
        with _connect(self._path) as connection:
            if database := options.get("database"):
                connection.query(f"USE `{_escape(database, '`')}`")
            if settings := _settings(options):
                connection.query(f"SET {settings}")
            if insert := INSERT.match(statement):
                with connection.send_insert(insert[1].decode(), insert[2].decode()) as rows:
                    rows.append(statement[insert.end() :])
                    written = rows.finish()
                return QueryResult(b"", {"written_rows": written.rows_written, "written_bytes": written.bytes_written})
            form = options.get("default_format", "TabSeparated")
            result = connection.query(statement.decode(), form, dict(parameters))
            return QueryResult(result.bytes(), {"read_rows": result.rows_read(), "read_bytes": result.bytes_read()})


def _connect(path: str) -> Any:
    return chdb.connect(path)  # type: ignore[no-untyped-call]  # chdb has no types


def _settings(options: Mapping[str, str]) -> str:
    """Return the settings among the URL parameters as arguments of SET; the engine validates them."""
    names = [n for n in options if n not in REQUEST_PARAMETERS and not n.startswith("param_")]
    if invalid := [n for n in names if not SETTING.fullmatch(n)]:
        raise RuntimeError(f"Code: 115. DB::Exception: Unknown setting {invalid[0]!r}. (UNKNOWN_SETTING)")
    return ", ".join(f"{name} = '{_escape(options[name], chr(39))}'" for name in names)


def _escape(text: str, quote: str) -> str:
    return text.replace("\\", "\\\\").replace(quote, "\\" + quote)


def _multipart_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of a multipart body, which clients use for parameters that are too long for a URL."""
    message = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    fields: dict[str, str] = {}
    for part in message.walk():
        name, value = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(value, bytes):
            fields[name] = value.decode()
    return fields


def _error_response(error: Exception, headers: Mapping[str, str]) -> Response:
    """Return the response from which clients rebuild ClickHouse's error."""
    text = str(error)
    match = re.search(r"Code: (\d+)\.", text)
    code = int(match[1]) if match else 1001  # STD_EXCEPTION: an error without a number
    status = 404 if code in NOT_FOUND else 400 if code in BAD_REQUEST else 500
    body = text[match.start() :] if match else f"Code: {code}. DB::Exception: {text}"
    return PlainTextResponse(body + "\n", status, headers={**headers, "X-ClickHouse-Exception-Code": str(code)})


def application(engine: Engine) -> Starlette:
    """Return the HTTP interface of `engine`: `/` runs statements, `/ping` is the health check."""

    async def statement(request: Request) -> Response:
        options = dict(request.query_params)
        headers = {
            "X-ClickHouse-Query-Id": options.get("query_id") or str(uuid.uuid4()),
            "X-ClickHouse-Timezone": engine.timezone,
        }
        body = await request.body()
        try:
            if encoding := request.headers.get("content-encoding"):
                body = await asyncio.to_thread(EXPAND[encoding], body)
            content_type = request.headers.get("content-type", "")
            if content_type.startswith("multipart/form-data"):
                options |= _multipart_fields(content_type, body)
                body = b""
            text = b"\n".join(filter(None, (options.get("query", "").encode(), body)))
            parameters = {
                name.removeprefix("param_"): value for name, value in options.items() if name.startswith("param_")
            }
            answer = await engine.execute(text, parameters, options)
        except (RuntimeError, ValueError, LookupError, OSError, zlib.error, chdb.ChdbError) as error:
            return _error_response(error, headers)
        headers["X-ClickHouse-Summary"] = json.dumps({k: str(v) for k, v in answer.summary.items()})
        if READ.match(text):
            headers["X-ClickHouse-Format"] = options.get("default_format", "TabSeparated")
        return await _compressed_response(request, answer.body, headers, options)

    async def ping(_: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    return Starlette(
        routes=[
            Route("/", statement, methods=["GET", "POST"]),
            Route("/ping", ping),
        ]
    )


async def _compressed_response(
    request: Request, body: bytes, headers: dict[str, str], options: Mapping[str, Any]
) -> Response:
    """Return the response. If the client asked for compression, use the first supported encoding that it accepts."""
    if options.get("enable_http_compression") == "1":
        accepted = (part.partition(";")[0].strip() for part in request.headers.get("accept-encoding", "").split(","))
        if encoding := next((name for name in accepted if name in COMPRESS), None):
            headers["Content-Encoding"] = encoding
            body = await asyncio.to_thread(COMPRESS[encoding], body)
    return Response(body, headers=headers, media_type="text/plain; charset=UTF-8")


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m stack.engines.clickhouse", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    engine = Engine(arguments.data)
    uvicorn.run(
        application(engine),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
    )
    os._exit(0)  # do not wait for running queries; inserted rows are on disk


if __name__ == "__main__":
    main()
