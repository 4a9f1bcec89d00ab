"""URLs of PostgreSQL, ClickHouse and Redis: what is accepted, what is refused, and that no message quotes a URL."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis.asyncio import BlockingConnectionPool

from kit.runtime.server_urls import (
    InvalidUrl,
    ServerUrl,
    parse_clickhouse_url,
    parse_postgres_url,
    parse_redis_url,
)
from provisioning.certificates import ensure_certificates

PARSERS = (parse_postgres_url, parse_clickhouse_url, parse_redis_url)
SECRET = "s3cret"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of TLS: the CA certificate, a pair of certificate and key, and the key of another pair."""
    authority, bank, card = ensure_certificates(tmp_path_factory.mktemp("tls"), ["bank", "card"], datetime.now(UTC))
    return {"authority": authority.certificate, "certificate": bank.certificate, "key": bank.key, "other": card.key}


@pytest.fixture(autouse=True)
def _no_defaults_of_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGSSLMODE", "PGUSER"):
        monkeypatch.delenv(name, raising=False)


class Dialed(OSError):
    """The address that a client would connect to."""


class DialingLoop:
    """Event loop that asyncpg connects with; it records the addresses and opens no connection."""

    def __init__(self) -> None:
        self.dialed: list[tuple[str, int | None]] = []

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    async def create_connection(self, _: object, host: str, port: int, **__: object) -> None:
        self.dialed.append((host, port))
        raise Dialed

    async def create_unix_connection(self, _: object, path: str, **__: object) -> None:
        folder, _, port = path.rpartition("/.s.PGSQL.")
        self.dialed.append((folder, int(port)))
        raise Dialed


async def addresses_of_asyncpg(url: str) -> list[tuple[str, int | None]]:
    """Return the addresses to which asyncpg connects, each once."""
    loop: Any = DialingLoop()
    with pytest.raises(Dialed):
        await asyncpg.connect(url, loop=loop, user="bank", password="x")
    return list(dict.fromkeys(loop.dialed))


class TestPostgres:
    @pytest.mark.parametrize(
        ("url", "hosts"),
        [
            ("postgresql://u:p@db.example:5433/bank", [("db.example", 5433)]),
            ("postgres://db_1/bank", [("db_1", 5432)]),
            ("postgresql://u:p@[::1]:5433/bank", [("::1", 5433)]),
            ("postgresql://u:p@[2001:db8::1]/bank", [("2001:db8::1", 5432)]),
            ("postgresql://u:p@[fe80::1%25eth0]:1/bank", [("fe80::1%eth0", 1)]),
            ("postgresql://u:p@[::1]:2,a:1,c/bank?target_session_attrs=primary", [("::1", 2), ("a", 1), ("c", 5432)]),
            ("postgresql:///bank?host=/run/postgresql", [("/run/postgresql", 5432)]),
            ("postgresql://u:p@/bank?host=/run/postgresql&port=5433", [("/run/postgresql", 5433)]),
            ("postgresql://u:p@%2Frun%2Fpostgresql:5433/bank", [("/run/postgresql", 5433)]),
            ("postgresql://u:p@h/bank?", [("h", 5432)]),
            ("postgresql://u:p@h/bank?application_name=x%20y", [("h", 5432)]),
            *((f"postgresql://h/bank?sslmode={mode}", [("h", 5432)]) for mode in ("disable", "prefer", "require")),
        ],
    )
    async def test_accepted_url_has_the_servers_to_which_asyncpg_connects(
        self, url: str, hosts: list[tuple[str, int]]
    ) -> None:
        parsed = parse_postgres_url(url)
        assert [(host, port or 5432) for host, port in parsed.hosts] == hosts
        assert await addresses_of_asyncpg(url) == hosts
        assert parsed.path == "bank"

    @pytest.mark.parametrize("secret", ["p@ss:w/rd?#[]%&=+ ", "пароль", "a:b", "100%"])
    def test_percent_encoded_login_and_database_are_decoded(self, secret: str) -> None:
        encoded = quote(secret, safe="")
        url = parse_postgres_url(f"postgresql://{encoded}:{encoded}@host/{encoded}")
        assert (url.user, url.password, url.path) == (secret, secret, secret)

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("", "must be a URL such as postgresql://"),
            ("postgresql://", "must be a URL such as postgresql://"),
            ("postgresql:///bank", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret@/bank", "must be a URL such as postgresql://"),
            ("postgresql+asyncpg://u:s3cret@h/b", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret@h", "must have the name of one database"),
            ("postgresql://u:s3cret@h/", "must have the name of one database"),
            ("postgresql://u:s3cret@h//b", "must have the name of one database"),
            ("postgresql://u:s3cret@h/b/", "must have the name of one database"),
            ("postgresql://u:s3cret@h/a/b", "must have the name of one database"),
            ("postgresql://u:s3cret@h:99999/b", "must have a port from 1 to 65535"),
            ("postgresql://u:s3cret@h:0/b", "must have a port from 1 to 65535"),
            ("postgresql://u:s3cret@h:abc/b", "must have a port from 1 to 65535"),
            ("postgresql://u:s3cret@h:/b", "must have a port from 1 to 65535"),
            ("postgresql://u:s3cret@h:\u0661/b", "must have a port from 1 to 65535"),
            ("postgresql://u:s3cret@a,,b/b", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret@a..b/b", "must be a URL such as postgresql://"),
            (f"postgresql://u:s3cret@{'a' * 64}/b", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret@[::1/b", "an IPv6 address is in brackets"),
            ("postgresql://u:s3cret@::1:5432/b", "an IPv6 address is in brackets"),
            ("postgresql://u:s3cret@[::g]/b", "an IPv6 address is in brackets"),
            ("postgresql://u:s3cret@[]/b", "an IPv6 address is in brackets"),
            ("postgresql://u:s3cret\n@h/b", "must be a URL such as postgresql://"),
            (" postgresql://u:s3cret@h/b", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret@h/b ", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret@h/b%00", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret%ff@h/b", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret\udcff@h/b", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret\u2100@h/b", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret#x@h/b", "special characters of the user and of the password are percent-encoded"),
            ("postgresql://u:s3cret@x@h/b", "special characters of the user and of the password are percent-encoded"),
            ("postgresql://u:12/x?s3cret=y@h/b", "special characters of the user and of the password are"),
            ("postgresql://u:12/s3cret@h/b", "special characters of the user and of the password are percent-encoded"),
            ("postgresql://u:s3cret@h/b#x", "must be a URL such as postgresql://"),
            ("postgresql://u:s3cret@h/b?foo=1", "has the parameter foo, which is not one of sslmode,"),
            ("postgresql://u:s3cret@h/b?ssl=require", "has the parameter ssl, which is not one of sslmode,"),
            ("postgresql://u:s3cret@h/b?connect_timeout=3", "has the parameter connect_timeout, which is not one of"),
            ("postgresql://u:s3cret@h/b?command_timeout=1", "has the parameter command_timeout, which is not one of"),
            ("postgresql://h/b?user=u&password=s3cret", "has the parameter user, which is not one of"),
            ("postgresql://h/b?service=s", "has the parameter service, which is not one of"),
            ("postgresql://h/b?s3%3Dcret=1", "has a parameter with an invalid name"),
            ("postgresql://h/b?sslmode", "must have parameters such as ?name=value"),
            ("postgresql://h/b?sslmode=disable&", "must have parameters such as ?name=value"),
            ("postgresql://h/b?application_name=%ff", "must have parameters such as ?name=value"),
            ("postgresql://h/b?application_name=%00", "has the parameter application_name, which must have a value"),
            ("postgresql://h/b?sslmode=", "has the parameter sslmode, which must have a value"),
            ("postgresql://h/b?sslmode=bogus", "has the parameter sslmode, which must be one of disable, allow,"),
            ("postgresql://h/b?sslmode=disable&sslmode=require", "has the parameter sslmode more than once"),
            ("postgresql://h/b?target_session_attrs=x", "has the parameter target_session_attrs, which must be one of"),
            ("postgresql://h/b?host=/tmp", "which are for a URL without a host"),
            ("postgresql://h/b?port=1", "which are for a URL without a host"),
            ("postgresql:///b?host=db.example", "has the parameter host, which must be the folder of a Unix socket"),
            ("postgresql:///b?host=/a,/b", "has the parameter host, which must be the folder of a Unix socket"),
            ("postgresql:///b?host=/a&port=x", "has the parameter port, which must be from 1 to 65535"),
            ("postgresql:///b?host=/a&port=65536", "has the parameter port, which must be from 1 to 65535"),
            ("postgresql:///b?port=1", "must be a URL such as postgresql://"),
            ("postgresql://h/b?sslmode=verify-full", "sslmode=verify-full, which needs the parameter sslrootcert"),
            (
                "postgresql://h/b?sslmode=require&sslrootcert=/none",
                "has the parameter sslrootcert, which must be the p",
            ),
            (f"postgresql://h/b?sslmode=require&sslcert={'x' * 5_000}", "has the parameter sslcert, which must be the"),
        ],
    )
    def test_invalid_url_is_refused_with_what_to_write_and_not_quoted(self, url: str, message: str) -> None:
        with pytest.raises(InvalidUrl) as caught:
            parse_postgres_url(url)
        assert message in str(caught.value)
        assert SECRET not in str(caught.value)

    async def test_files_of_tls_are_accepted(self, tls: dict[str, Path]) -> None:
        url = f"postgresql://h/bank?sslmode=verify-full&sslrootcert={tls['authority']}"
        url += f"&sslcert={tls['certificate']}&sslkey={tls['key']}"
        assert parse_postgres_url(url).parameters["sslmode"] == "verify-full"
        assert await addresses_of_asyncpg(url) == [("h", 5432)]

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            (
                "sslrootcert={authority}",
                "sslrootcert, which has no effect without sslmode=require, verify-ca or verify",
            ),
            ("sslmode=prefer&sslrootcert={authority}", "sslrootcert, which has no effect without sslmode=require"),
            ("sslmode=disable&sslcert={certificate}&sslkey={key}", "sslcert, which has no effect without sslmode="),
            ("sslmode=require&sslrootcert={key}", "sslrootcert, which must be a file with certificates (PEM)"),
            ("sslmode=require&sslcert={certificate}", "in sslcert and sslkey a certificate and its own private key"),
            ("sslmode=require&sslkey={key}", "in sslcert and sslkey a certificate and its own private key"),
            ("sslmode=require&sslcert={certificate}&sslkey={other}", "in sslcert and sslkey a certificate and its own"),
        ],
    )
    def test_file_of_tls_that_cannot_work_is_refused(self, query: str, message: str, tls: dict[str, Path]) -> None:
        with pytest.raises(InvalidUrl) as caught:
            parse_postgres_url(f"postgresql://h/bank?{query.format(**tls)}")
        assert message in str(caught.value)


class TestClickHouse:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "http://u:p%40@host:8123/wallet",
                ServerUrl("http", "u", "p@", (("host", 8123),), "wallet", {}),
            ),
            ("https://[::1]/my%20db/", ServerUrl("https", "", "", (("::1", None),), "my db", {})),
            ("http://host", ServerUrl("http", "", "", (("host", None),), "", {})),
        ],
    )
    def test_parts_are_decoded(self, text: str, expected: ServerUrl) -> None:
        assert parse_clickhouse_url(text) == expected

    def test_file_of_certificates_is_accepted_for_https_only(self, tls: dict[str, Path]) -> None:
        query = f"?ca_cert={tls['authority']}"
        assert parse_clickhouse_url(f"https://host/wallet{query}").parameters == {"ca_cert": str(tls["authority"])}
        with pytest.raises(InvalidUrl, match="has the parameter ca_cert, which has no effect without https://"):
            parse_clickhouse_url(f"http://host/wallet{query}")

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("http:///wallet", "must be a URL such as http://"),
            ("clickhouse://u:s3cret@h:9000/wallet", "must be a URL such as http://"),
            ("http://u:s3cret@h:abc/wallet", "must have a port from 1 to 65535"),
            ("http://u:s3cret@h:99999/wallet", "must have a port from 1 to 65535"),
            ("http://u:s3cret@[::1/wallet", "an IPv6 address is in brackets"),
            ("http://u:s3cret@a,b/wallet", "must be a URL such as http://"),
            ("http://u:s3cret@h/a/b", "must have the name of one database"),
            ("http://u:s3cret@h/wallet?foo=1", "has the parameter foo, which is not one of ca_cert"),
            ("https://u:s3cret@h/wallet?verify=false", "has the parameter verify, which is not one of ca_cert"),
        ],
    )
    def test_invalid_url_is_refused_with_what_to_write_and_not_quoted(self, url: str, message: str) -> None:
        with pytest.raises(InvalidUrl) as caught:
            parse_clickhouse_url(url)
        assert message in str(caught.value)
        assert SECRET not in str(caught.value)


class TestRedis:
    @pytest.mark.parametrize(
        "url", ["redis://host", "redis://:p%40@host:6379/0", "rediss://u:p@[::1]:6379/15", "redis://host/"]
    )
    def test_accepted_url_is_accepted_by_redis(self, url: str) -> None:
        parsed = parse_redis_url(url)
        arguments = BlockingConnectionPool.from_url(url).connection_kwargs
        assert arguments["host"] == parsed.hosts[0][0]
        assert arguments.get("password", "") == parsed.password

    def test_files_of_tls_are_accepted(self, tls: dict[str, Path]) -> None:
        files = f"ssl_ca_certs={tls['authority']}&ssl_certfile={tls['certificate']}&ssl_keyfile={tls['key']}"
        url = f"rediss://host/0?{files}"
        assert parse_redis_url(url).path == "0"
        pool: Any = BlockingConnectionPool.from_url(url)
        pool.make_connection()
        with pytest.raises(InvalidUrl, match="has the parameter ssl_ca_certs, which has no effect without rediss://"):
            parse_redis_url(f"redis://host/0?{files}")

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("redis://", "must be a URL such as redis://"),
            ("redis://:s3cret@h:abc/0", "must have a port from 1 to 65535"),
            ("redis://:s3cret@h:99999/0", "must have a port from 1 to 65535"),
            ("redis://:s3cret@h/wallet", "must have the number of a database"),
            ("redis://:s3cret@h/0?db=1", "has the parameter db, which is not one of ssl_ca_certs,"),
            ("redis://:s3cret@h/0?foo=1", "has the parameter foo, which is not one of ssl_ca_certs,"),
        ],
    )
    def test_invalid_url_is_refused_with_what_to_write_and_not_quoted(self, url: str, message: str) -> None:
        with pytest.raises(InvalidUrl) as caught:
            parse_redis_url(url)
        assert message in str(caught.value)
        assert SECRET not in str(caught.value)


_PIECES = (
    *("postgresql", "http", "redis", "://", ":", "/", "//", "?", "#", "@", "&", "=", "[", "]", ",", ";", "%", "+"),
    *(
        "%00",
        "%2F",
        "%40",
        "%ff",
        "::1",
        "host",
        "user",
        SECRET,
        "5432",
        "99999",
        "bank",
        "0",
        " ",
        "\n",
        "é",
        "\u2100",
    ),
    *("\udcff", "sslmode", "disable", "verify-full", "require", "host=/tmp", "port=1", "application_name=x", "sslcert"),
)
_TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(_PIECES)).map("".join))
_URLS = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["postgresql", "postgres", "http", "https", "redis", "rediss"]),
    st.one_of(st.just(""), st.builds("{}:{}@".format, _TEXTS, _TEXTS), st.just("user:p%40@")),
    st.one_of(_TEXTS, st.sampled_from(["", "host", "host:1", "[::1]:1", "a,b:2", "%2Ftmp", "%2Ftmp:1"])),
    st.one_of(_TEXTS.map("/{}".format), st.sampled_from(["", "/", "/bank", "/0"])),
    st.one_of(st.just(""), _TEXTS.map("?{}".format), st.sampled_from(["?sslmode=require", "?host=/tmp&port=1"])),
)


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.one_of(_TEXTS, _URLS))
def test_any_text_is_parsed_or_refused_with_the_typed_error(parse: Callable[[str], ServerUrl], text: str) -> None:
    with suppress(InvalidUrl):
        assert parse(text).hosts


def can_split(url: str) -> bool:
    """Return whether this release of Python splits the URL, and so whether asyncpg does. Newer releases refuse an IPv6
    address after another host."""
    try:
        return bool(urlsplit(url))
    except ValueError:
        return False


_VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(
    login=st.tuples(_VALUES, _VALUES),
    hosts=st.lists(st.sampled_from(["host", "a.example:1", "[::1]", "[::1]:65535", "%2Ftmp:2"]), min_size=1),
    database=_VALUES,
    name=_VALUES,
    mode=st.sampled_from(["disable", "allow", "prefer", "require"]),
)
def test_percent_encoded_url_of_postgresql_is_decoded_and_accepted_by_asyncpg(
    login: tuple[str, str], hosts: list[str], database: str, name: str, mode: str
) -> None:
    user, password, path, application = (quote(each, safe="") for each in (*login, database, name))
    url = f"postgresql://{user}:{password}@{','.join(hosts)}/{path}?application_name={application}&sslmode={mode}"
    assume(can_split(url))
    parsed = parse_postgres_url(url)
    assert (parsed.user, parsed.password, parsed.path) == (*login, database)
    assert parsed.parameters == {"application_name": name, "sslmode": mode}
    assert asyncio.run(addresses_of_asyncpg(url)) == list(
        dict.fromkeys((host, port or 5432) for host, port in parsed.hosts)
    )


@given(url=_URLS)
def test_every_accepted_url_of_postgresql_is_accepted_by_asyncpg(url: str) -> None:
    try:
        parsed = parse_postgres_url(url)
    except InvalidUrl:
        return
    dialed = [(host.rstrip("/"), port) for host, port in asyncio.run(addresses_of_asyncpg(url))]
    assert dialed == list(dict.fromkeys((host.rstrip("/"), port or 5432) for host, port in parsed.hosts))
