"""Messages about invalid settings of all processes."""

import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from docs.reference.generate_settings import PROCESSES
from kit.runtime.invalid_settings import FALLBACK
from kit.runtime.settings import Settings, TLSSettings

SETTINGS = [import_module(package + ".__main__").Settings for package in PROCESSES.values()]
WRONG = "b4d?"
WRONG_VALUES = (
    WRONG,
    "",
    "-1",
    "0",
    "1.5",
    "nan",
    "1e400",
    "9" * 5_000,
    "[",
    "{}",
    "[1]",
    "[{}]",
    json.dumps([WRONG]),
    json.dumps({WRONG: 1}),
    json.dumps({WRONG: {}}),
    json.dumps({WRONG: {"top_up": WRONG, "day": -1}}),
    "ftp://host",
    "https://",
)
LIBRARY_WORDS = (
    "Input should",
    "Field required",
    "Value error",
    "rate limit string",
    "JSONDecode",
    "error parsing",
    "Url ",
)


def read_exit_messages(settings: type[Settings], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Load invalid settings; return the messages with which the process exits."""
    with pytest.raises(SystemExit) as ended:
        settings.load()
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[1:]


def messages_about(name: str, lines: list[str]) -> list[str]:
    return [line for line in lines if re.match(rf"  {name}\b", line)]


@pytest.mark.parametrize("settings", SETTINGS, ids=list(PROCESSES))
def test_messages_have_no_library_text_and_do_not_quote_the_value(
    settings: type[Settings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SECRETS_DIR", raising=False)
    for value in WRONG_VALUES:
        for name in settings.model_fields:
            monkeypatch.setenv(name.upper(), value)
        lines = read_exit_messages(settings, capsys)
        assert lines, value
        for line in lines:
            assert FALLBACK not in line, (value, line)
            assert not any(words in line for words in LIBRARY_WORDS), (value, line)
            if value == WRONG:
                assert WRONG not in line


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("GATEWAY_CORS_HEADERS", "x-foo,x-bar", 'must be a JSON array, such as ["one", "two"]'),
        ("GATEWAY_CORS_ORIGINS", "*", 'must be a JSON array, such as ["one", "two"]'),
        ("GATEWAY_CORS_ORIGINS", '"*"', 'must be a JSON array, such as ["one", "two"]'),
        ("GATEWAY_TRUSTED_PROXIES", "x", 'must be a JSON array, such as ["one", "two"]'),
        ("GATEWAY_TRUSTED_PROXIES", '["::1/200"]', "must be an IP address or a network"),
        ("GATEWAY_TRUSTED_PROXIES", '["10.0.0.1/8"]', "must be an IP address or a network without host bits"),
        ("GATEWAY_TRUSTED_PROXIES", '["proxy"]', "must be an IP address or a network"),
        ("AUTH_SERVICES", "card=card.json", "must be a JSON object"),
        ("AUTH_LEEWAY_SECONDS", "abc", "must be a number"),
        ("AUTH_LEEWAY_SECONDS", "301", "must be at most 300"),
        ("BANK_GRPC_TARGET", "nonsense", "must be a host and a port, such as 127.0.0.1:50051, dns:///"),
        ("BANK_GRPC_TARGET", "ipv4:10.0.0.1:50051,10.0.0.2", "must be a host and a port"),
        ("CALL_LIMIT", "1.5", "must be a whole number"),
        ("CALL_LIMIT", "0", "must be greater than 0"),
        ("LOG_FORMAT", "text", "must be one of console, json"),
        ("OTLP_ENDPOINT", "collector:4317", "must be a URL that begins with http or https"),
        ("GATEWAY_RATE_REQUESTS", "many", "must be a number of hits per period"),
    ],
)
def test_message_names_the_setting_and_what_is_accepted(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    (line,) = messages_about(name, read_exit_messages(SETTINGS[0], capsys))
    assert re.match(rf"  {name}(\.0)?: {re.escape(message)}", line)


def test_value_from_a_file_has_the_same_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway_cors_origins").write_text("*")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    (line,) = messages_about("GATEWAY_CORS_ORIGINS", read_exit_messages(SETTINGS[0], capsys))
    assert line.endswith('must be a JSON array, such as ["one", "two"]')


def test_element_of_an_array_is_named_by_its_position(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", '["https://a.example", "https://b.example/"]')
    (line,) = messages_about("GATEWAY_CORS_ORIGINS", read_exit_messages(SETTINGS[0], capsys))
    assert line.startswith("  GATEWAY_CORS_ORIGINS.1: is no origin: write scheme")


@pytest.mark.parametrize("settings", SETTINGS, ids=list(PROCESSES))
def test_grpc_settings_have_the_names_whose_addresses_are_checked(settings: type[Settings]) -> None:
    names = [name for name in settings.model_fields if "grpc" in name]
    assert all(name.endswith(("_grpc_listen", "_grpc_target")) for name in names)
    assert not names or issubclass(settings, TLSSettings)
