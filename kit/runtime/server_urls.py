"""URLs of the servers that a process connects to with a password: PostgreSQL, ClickHouse and Redis.

A URL is checked completely when the process starts, because the client libraries report most mistakes only when they
connect. A URL that is accepted here is also accepted by the library that reads it. Messages never quote a URL, because
it may contain a password; they quote the names of parameters.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from kit.runtime.certificate_files import is_authority_file, is_key_pair

_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[^:\[\]]*))?")
_NAME: Final = re.compile(r"[0-9A-Za-z_-]{1,63}(?:\.[0-9A-Za-z_-]{1,63})*\.?")  # the resolver raises for longer labels
_PARAMETER: Final = re.compile(r"[0-9A-Za-z_.-]{1,63}")
_REDIS_DATABASE: Final = re.compile(r"[0-9]{1,4}")
_MAX_PORT: Final = 2**16 - 1


class InvalidUrl(ValueError):
    """A URL is invalid. The message says what to write, follows the name of a setting and does not quote the URL."""


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """Parts of a URL, decoded.

    Attributes:
        scheme: scheme in lower case.
        user: name of the user; empty if the URL has none.
        password: password of the user; empty if the URL has none.
        hosts: host and port of each server; the port is None if the URL has none. A host is a name, an IP address
            without brackets, or the folder of a Unix socket.
        path: path without slashes at its ends, such as the name of the database.
        parameters: parameters after the question mark, by name.
    """

    scheme: str
    user: str
    password: str
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    parameters: Mapping[str, str]


_Rule = Callable[[str], str | None]
"""Returns what is wrong with the value of a parameter, as the end of "the parameter … "; None for a valid value."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """URLs of one kind of server.

    Attributes:
        schemes: accepted schemes.
        example: valid URL for messages.
        parameters: accepted parameters, each with the rule of its values.
        tls_files: accepted parameters with the files of CA certificates, of the client's certificate and of its key.
        tls_rule: what the URL must have, so that TLS is always used.
    """

    schemes: frozenset[str]
    example: str
    parameters: Mapping[str, _Rule]
    tls_files: Sequence[str]
    tls_rule: str


def _one_of(*values: str) -> _Rule:
    return lambda value: None if value in values else f"must be one of {', '.join(values)}"


def _text(_: str) -> None:
    """Accept every value."""


def _file(value: str) -> str | None:
    is_readable = os.access(value, os.R_OK) and Path(value).is_file()
    return None if is_readable else "must be the path of a file that exists and that this process can read"


def _socket_folder(value: str) -> str | None:
    is_folder = value.startswith("/") and "," not in value
    return None if is_folder else "must be the folder of a Unix socket; write the name of a server before the database"


def _port(value: str) -> str | None:
    return None if _is_port(value) else f"must be from 1 to {_MAX_PORT}"


def _is_port(text: str) -> bool:
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_PORT))
    return is_number and 0 < int(text) <= _MAX_PORT


_TLS_MODES: Final = ("require", "verify-ca", "verify-full")
"""Values of `sslmode` with which a connection without TLS fails."""

_POSTGRES: Final = _Kind(
    frozenset({"postgresql", "postgres"}),
    "postgresql://user:password@host:5432/database",
    {
        "sslmode": _one_of("disable", "allow", "prefer", *_TLS_MODES),
        "sslrootcert": _file,
        "sslcert": _file,
        "sslkey": _file,
        "application_name": _text,
        "target_session_attrs": _one_of("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
        "host": _socket_folder,
        "port": _port,
    },
    ("sslrootcert", "sslcert", "sslkey"),
    f"sslmode={', '.join(_TLS_MODES[:-1])} or {_TLS_MODES[-1]}",
)
_CLICKHOUSE: Final = _Kind(
    frozenset({"http", "https"}),
    "http://user:password@host:8123/database",
    {"ca_cert": _file},
    ("ca_cert",),
    "https://",
)
_REDIS: Final = _Kind(
    frozenset({"redis", "rediss"}),
    "redis://user:password@host:6379/0",
    {"ssl_ca_certs": _file, "ssl_certfile": _file, "ssl_keyfile": _file},
    ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"),
    "rediss://",
)


def parse_postgres_url(text: str) -> ServerUrl:
    """Return the parts of a URL that asyncpg accepts; `path` is the name of the database.

    It may have several hosts, separated by commas. The folder of a Unix socket is the percent-encoded host or the
    parameter `host`.

    Raises:
        InvalidUrl: the URL is invalid.
    """
    split = _split(text, _POSTGRES)
    parameters = _parse_parameters(split.query, _POSTGRES)
    _, _, servers = split.netloc.rpartition("@")
    if servers and parameters.keys() & {"host", "port"}:
        raise InvalidUrl("has the parameters host or port, which are for a URL without a host before the database")
    if servers:
        hosts = tuple(_parse_host(each, _POSTGRES, allow_socket=True) for each in servers.split(","))
    elif "host" in parameters:
        hosts = ((parameters["host"], int(parameters["port"]) if "port" in parameters else None),)
    else:
        raise _malformed(_POSTGRES)
    mode = parameters.get("sslmode", "")
    if mode.startswith("verify") and "sslrootcert" not in parameters:
        raise InvalidUrl(f"has sslmode={mode}, which needs the parameter sslrootcert: the file of the CA certificates")
    _check_tls_files(parameters, _POSTGRES, uses_tls=mode in _TLS_MODES)
    url = _server_url(split, hosts, parameters, _POSTGRES)
    if not url.path or "/" in split.path[1:]:
        raise InvalidUrl(f"must have the name of one database, as in {_POSTGRES.example}")
    return url


def parse_clickhouse_url(text: str) -> ServerUrl:
    """Return the parts of the URL of ClickHouse; `path` is the name of the database, or empty for the default one.

    Raises:
        InvalidUrl: the URL is invalid.
    """
    url = _parse_single_server(text, _CLICKHOUSE, tls_scheme="https")
    if "/" in url.path:
        raise InvalidUrl(f"must have the name of one database, as in {_CLICKHOUSE.example}")
    return url


def parse_redis_url(text: str) -> ServerUrl:
    """Return the parts of the URL of Redis; `path` is the number of the database, or empty.

    Raises:
        InvalidUrl: the URL is invalid.
    """
    url = _parse_single_server(text, _REDIS, tls_scheme="rediss")
    if url.path and not _REDIS_DATABASE.fullmatch(url.path):
        raise InvalidUrl(f"must have the number of a database, as in {_REDIS.example}")
    return url


def _parse_single_server(text: str, kind: _Kind, *, tls_scheme: str) -> ServerUrl:
    split = _split(text, kind)
    _, _, server = split.netloc.rpartition("@")
    host = _parse_host(server, kind)
    parameters = _parse_parameters(split.query, kind)
    _check_tls_files(parameters, kind, uses_tls=split.scheme == tls_scheme)
    return _server_url(split, (host,), parameters, kind)


def _malformed(kind: _Kind) -> InvalidUrl:
    return InvalidUrl(
        f"must be a URL such as {kind.example}: an IPv6 address is in brackets, and special characters of the user and "
        "of the password are percent-encoded, such as %40 for @"
    )


def _split(text: str, kind: _Kind) -> SplitResult:
    """Split a URL whose parts are in their places.

    After an unencoded `/`, `?` or `#` in a password, the rest of the password would be in the path or a parameter.
    Then the `@` after the password is in one of them, too.
    """
    try:
        text.encode()  # fails for bytes of the environment that are not UTF-8
        split = urlsplit(text)
    except ValueError:
        raise _malformed(kind) from None
    is_misplaced = "#" in text or split.netloc.count("@") > 1 or "@" in split.path + split.query
    if split.scheme not in kind.schemes or is_misplaced or any(each <= " " or each == "\x7f" for each in text):
        raise _malformed(kind)
    return split


def _parse_host(text: str, kind: _Kind, *, allow_socket: bool = False) -> tuple[str, int | None]:
    match = _HOST.fullmatch(text)
    if match is None:
        raise _malformed(kind)
    port = match["port"]
    if port is not None and not _is_port(port):
        raise InvalidUrl(f"must have a port from 1 to {_MAX_PORT}, as in {kind.example}")
    if match["ipv6"] is not None:
        host = _decode(match["ipv6"], kind)
        try:
            IPv6Address(host)
        except ValueError:
            raise _malformed(kind) from None
    else:
        host = match["name"]
        if allow_socket and "%" in host and (folder := _decode(host, kind)).startswith("/"):
            host = folder
        elif not _NAME.fullmatch(host):
            raise _malformed(kind)
    return host, None if port is None else int(port)


def _parse_parameters(query: str, kind: _Kind) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise InvalidUrl("must have parameters such as ?name=value&name=value after the question mark") from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if not _PARAMETER.fullmatch(name):
            raise InvalidUrl("has a parameter with an invalid name")
        rule = kind.parameters.get(name)
        if rule is None:
            raise InvalidUrl(f"has the parameter {name}, which is not one of {', '.join(kind.parameters)}")
        if name in parameters:
            raise InvalidUrl(f"has the parameter {name} more than once")
        problem = rule(value) if value and "\0" not in value else "must have a value"
        if problem:
            raise InvalidUrl(f"has the parameter {name}, which {problem}")
        parameters[name] = value
    return parameters


def _check_tls_files(parameters: Mapping[str, str], kind: _Kind, *, uses_tls: bool) -> None:
    files = [name for name in kind.tls_files if name in parameters]
    if files and not uses_tls:
        raise InvalidUrl(f"has the parameter {files[0]}, which has no effect without {kind.tls_rule}")
    authority, *pair = kind.tls_files
    if authority in parameters and not is_authority_file(parameters[authority]):
        raise InvalidUrl(f"has the parameter {authority}, which must be a file with certificates (PEM)")
    given = [parameters[name] for name in pair if name in parameters]
    if given and (len(given) < len(pair) or not is_key_pair(*given)):
        names = " and ".join(pair)
        raise InvalidUrl(f"must have in {names} a certificate and its own private key, both PEM, not encrypted")


def _server_url(
    split: SplitResult, hosts: tuple[tuple[str, int | None], ...], parameters: Mapping[str, str], kind: _Kind
) -> ServerUrl:
    login, _, _ = split.netloc.rpartition("@")
    user, _, password = login.partition(":")
    path = _decode(split.path.strip("/"), kind)
    return ServerUrl(split.scheme, _decode(user, kind), _decode(password, kind), hosts, path, parameters)


def _decode(text: str, kind: _Kind) -> str:
    """Decode percent-encoded UTF-8 without NUL, which no server accepts."""
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _malformed(kind) from None
    if "\0" in decoded:
        raise _malformed(kind)
    return decoded
