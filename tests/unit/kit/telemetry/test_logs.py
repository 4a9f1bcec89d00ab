"""Logs of a process and of its libraries: format, context and redaction."""

import json
import logging
import os
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.runtime.settings import LogSettings
from kit.telemetry import logs


class NamedLogger(NamedTuple):
    """Logger as structlog passes it to a processor."""

    name: str


PROCESS = """
import logging
import structlog
from pydantic import SecretBytes, SecretStr
from kit.rpc import request_context
from kit.telemetry import logs
from kit.auth.principal import Principal
from kit.runtime.settings import LogSettings
from kit.telemetry.tracing import TraceContext

log = structlog.get_logger("ours")
logs.configure("service", LogSettings(log_format="{format}", log_level="INFO"))
log.info("early")
alice = Principal("users", "alice", is_service=False, expires_at=0)
trace = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736")
request_context.current_request.set(request_context.RequestContext("the-request", alice, "a token", trace=trace))
log.debug("not logged")
log.info("ours", amount="1.00")
log.info("odd", half="\\ud800", keys={{1: 2**70}})
logging.getLogger("theirs").warning("theirs %s", 1)
try:
    raise KeyError("key")
except KeyError:
    log.exception("failed")
    logging.getLogger("theirs").exception("failed, too")
card = {{"number": "4242424242424242", "cvv": "123", "brand": "VISA", "expiry": [12, {{"CVC": 123}}]}}
log.info(
    "hostile",
    authorization="Bearer hide", Password="hide", access_token="hide", cardNumber="hide", webhook=SecretStr("hide"),
    deep=({{"unseen": [SecretBytes(b"hide")], "newTokens": ["hide"]}}, card), text="two\\nlines", keep="number",
)
"""

LEAKS = """
import logging
import structlog
from protos.wallet.card.v1 import card_pb2
from kit.telemetry import logs
from kit.runtime.settings import LogSettings

logs.configure("service", LogSettings(log_format="{format}", log_level="INFO"))
log = structlog.get_logger("ours")
token = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
log.info(f"no answer for 4242424242424242 and {{token}}", path="/4242424242424242?t=" + token, amount=4242424242424242)
log.info("asked", request=card_pb2.CardDetails(number="4242424242424242", cvv="123"), places=["5555555555554444"])
logging.getLogger("theirs").warning("sent 4242424242424242 with Bearer %s", token)
try:
    raise ValueError("4242424242424242 is not of " + token)
except ValueError:
    log.exception("failed")
    logging.getLogger("theirs").exception("failed, too")
log.info(
    "kept", offset=1234567890123456, trace="4bf92f3577b34da6a3ce929d0e0e4736", id="01a1fc68-ad44-74c3-a6d6-42556a5c7775"
)
"""


@cache
def run_and_read_logs(log_format: str, program: str = PROCESS) -> Sequence[str]:
    """Run the program once, and return the lines of its standard error."""
    program = program.format(format=log_format)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
    assert done.stdout == b""
    return done.stderr.decode().splitlines()


class TestConfigure:
    def test_json_log_has_one_object_per_line_of_any_logger(self) -> None:
        early, own_line, odd, library_line, failed, failed_too, _ = map(json.loads, run_and_read_logs("json"))
        assert early.keys() == {"event", "service", "level", "logger", "timestamp"}
        for line, level, logger in (
            (own_line, "info", "ours"),
            (library_line, "warning", "theirs"),
            (failed, "error", "ours"),
        ):
            assert (line["service"], line["request_id"], line["caller"]) == ("service", "the-request", "alice")
            assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
            assert (line["level"], line["logger"]) == (level, logger)
            assert line["timestamp"].endswith("Z")
        assert (own_line["event"], own_line["amount"], library_line["event"]) == ("ours", "1.00", "theirs 1")
        assert (odd["half"], odd["keys"]) == ("\ud800", {"1": int("9" * 22)})  # masked: may contain a card number
        for line in (failed, failed_too):
            assert line["exception"][0]["exc_type"] == "KeyError"

    @pytest.mark.parametrize("log_format", ["json", "console"])
    def test_fields_that_are_secret_by_name_or_type_are_redacted(self, log_format: str) -> None:
        text = "\n".join(run_and_read_logs(log_format))
        assert "hostile" in text
        # The test does not search for the card's code, because a timestamp may have the same three digits.
        assert "4242424242424242" not in text
        assert "hide" not in text

    def test_secret_fields_are_redacted_at_any_depth_and_others_are_kept(self) -> None:
        line = json.loads(run_and_read_logs("json")[-1])
        for name in ("authorization", "Password", "access_token", "cardNumber", "webhook"):
            assert line[name] == "***"
        assert line["deep"] == [
            {"unseen": ["***"], "newTokens": "***"},
            {"number": "***", "cvv": "***", "brand": "VISA", "expiry": [12, {"CVC": "***"}]},
        ]
        assert (line["text"], line["keep"]) == ("two\nlines", "number")

    @pytest.mark.parametrize("text", ["amount=1.00", "theirs 1", "KeyError"])
    def test_console_log_is_readable(self, text: str) -> None:
        assert text in "\n".join(run_and_read_logs("console"))


class TestRedactLine:
    """Secrets in messages, paths and library logs."""

    @pytest.mark.parametrize("log_format", ["json", "console"])
    def test_cards_and_tokens_are_redacted_anywhere_in_a_line(self, log_format: str) -> None:
        text = "\n".join(run_and_read_logs(log_format, LEAKS))
        for secret in ("4242424242424242", "5555555555554444", "eyJ"):
            assert secret not in text
        assert "9999999999999999" in text
        assert "cvv" not in text
        assert "CardDetails" in text
        for kept in ("1234567890123456", "4bf92f3577b34da6a3ce929d0e0e4736", "01a1fc68-ad44-74c3-a6d6-42556a5c7775"):
            assert kept in text

    def test_redacted_line_is_valid_json(self) -> None:
        assert [json.loads(line)["event"] for line in run_and_read_logs("json", LEAKS)][-3:] == [
            "failed",
            "failed, too",
            "kept",
        ]


ANY_DESCRIPTOR = """
import logging, sys, threading, warnings
import structlog
from kit.telemetry import logs
from kit.runtime.settings import LogSettings

logs.configure("service", LogSettings(log_format="json", log_level="INFO"))
log = structlog.get_logger("ours")
for number in range(1_000):
    log.info("event", number=number, text="x" * 10_000)  # more than the queue holds
    logging.getLogger("theirs").warning("%d", number)
warnings.warn("warned")
print("done")
"""


class TestStandardError:
    @pytest.mark.parametrize("standard_error", ["closed", "without a reader", "with a reader that stopped"])
    def test_process_continues_when_its_log_cannot_be_written(self, standard_error: str) -> None:
        reader, writer = os.pipe()
        if standard_error == "without a reader":
            os.close(reader)
        redirection = "2>&-" if standard_error == "closed" else ""
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, ANY_DESCRIPTOR],
            check=True,
            stdout=subprocess.PIPE,
            stderr=writer,
            timeout=60,
        )
        os.close(writer)
        if standard_error != "without a reader":
            os.close(reader)
        assert done.stdout == b"done\n"


STOPPED = """
import os, signal
from kit.runtime import process
from kit.runtime.settings import LogSettings
from kit.telemetry import logs

async def main(stop):
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()

logs.configure("service", LogSettings(log_format="json", log_level="INFO"))
process.run(main)
"""


@pytest.mark.parametrize("redirection", ["<&- >&-", ">&-", "<&- >&- 2>&-"])
def test_process_with_closed_standard_descriptors_is_not_aborted(redirection: str) -> None:
    """libuv aborts the process if it must close a descriptor below three."""
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, STOPPED]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"Abort" not in done.stderr


PRINTS = """
import gc, logging, sys, threading, warnings
import structlog
from kit.telemetry import logs
from kit.runtime.settings import LogSettings

logs.configure("service", LogSettings(log_format="json", log_level="INFO"))

class Bad:
    def __del__(self):
        raise ValueError("4242424242424242")

def fail():
    raise ValueError("4242424242424242")

warnings.warn("warned")
thread = threading.Thread(target=fail, name="worker")
thread.start()
thread.join()
Bad()
fail()
"""


def test_warnings_and_uncaught_errors_are_logged_and_redacted() -> None:
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    events = [line["event"] for line in lines]
    assert events[1:] == ["thread failed", "error in a finalizer", "process failed"]
    assert "UserWarning: warned" in events[0]
    for line in lines[1:]:
        assert line["exception"][0]["exc_value"] == "9999999999999999"


HOSTILE = "\x01\x1b[8m\x1b[2J\x9b\x7f\u202e\u2028\u2066"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def _endless() -> dict[str, object]:
    nested: dict[str, object] = {}
    nested["self"] = nested
    return nested


_VALUES = st.recursive(
    st.one_of(
        st.text(st.characters()),  # also lone surrogates and control characters
        st.integers(),
        st.floats(),
        st.binary(),
        st.builds(Unprintable),
        st.builds(_endless),
        st.builds(RuntimeError, st.text()),
    ),
    lambda values: st.one_of(st.lists(values), st.dictionaries(st.one_of(st.text(), st.integers()), values)),
    max_leaves=5,
)


class TestSafeRendering:
    @given(event=_VALUES, fields=st.dictionaries(st.text(), _VALUES), log_format=st.sampled_from(["json", "console"]))
    def test_any_event_becomes_a_line(self, event: object, fields: dict[str, Any], log_format: str) -> None:
        renderer = logs.line_renderer("service", LogSettings(log_format=log_format))
        line = renderer(NamedLogger("ours"), "info", {**fields, "event": event})
        if log_format == "json":
            assert json.loads(line)["level"] == "info"
        else:
            assert line
            assert not {each for each in line.decode() if unicodedata.category(each) == "Cc"} - set("\n\t")

    @pytest.mark.parametrize("has_colors", [True, False])
    def test_control_characters_are_escaped_in_the_console_format(
        self, monkeypatch: pytest.MonkeyPatch, *, has_colors: bool
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: has_colors, raising=False)
        renderer = logs.line_renderer("service", LogSettings(log_format="console"))
        error = ValueError("\x1b[8m\u2028")
        event = {"event": "a\x00\x1b[8mb", "path": f"/{HOSTILE}", "list": [HOSTILE], "exc_info": error}
        line = renderer(NamedLogger("ours"), "info", event).decode()
        assert ("\x1b[0m" in line) is has_colors
        assert "\x1b[8m" not in line
        assert not set(line) & set(HOSTILE) - set("\x1b[8mJ2")
        assert "a\\x00\\x1b[8mb" in line
        assert "/\\x01\\x1b[8m\\x1b[2J\\x9b\\x7f\\u202e\\u2028\\u2066" in line
        assert "ValueError: \\x1b[8m\\u2028" in line

    def test_control_characters_are_escaped_in_the_json_format(self) -> None:
        renderer = logs.line_renderer("service", LogSettings(log_format="json"))
        for text in (HOSTILE, "\x7f", "é"):
            line = renderer(NamedLogger("ours"), "info", {"event": "asked", "path": text})
            assert not set(line.decode()) & set(HOSTILE) - set("[8mJ2")
            assert json.loads(line)["path"] == text

    @pytest.mark.parametrize("value", [Unprintable(), _endless()])
    def test_event_that_cannot_be_rendered_keeps_its_name(self, value: object) -> None:
        renderer = logs.line_renderer("service", LogSettings(log_format="json"))
        line = json.loads(renderer(NamedLogger("ours"), "info", {"event": "paid 4242424242424242", "value": value}))
        assert (line["event"], line["service"]) == ("paid 9999999999999999", "service")
        assert line["log_error"] in {"RuntimeError", "RecursionError"}

    def test_long_line_is_cut_after_redaction(self) -> None:
        renderer = logs.line_renderer("service", LogSettings(log_format="json"))
        text = "4242424242424242 " * 100_000
        line = json.loads(renderer(NamedLogger("ours"), "info", {"event": "paid", "text": text}))
        assert line["event"] == "paid"
        assert "9999999999999999" in line["excerpt"]
        assert "4242424242424242" not in line["excerpt"]
        assert len(line["excerpt"]) < 5_000

    def test_library_message_with_wrong_arguments_is_logged(self) -> None:
        lines: list[bytes] = []
        handler = logs.SinkHandler(logs.line_renderer("service", LogSettings(log_format="json")), lines.append)
        handler.emit(logging.LogRecord("theirs", logging.ERROR, "", 0, "%d of %d", ("x",), None))
        assert json.loads(lines[0])["event"] == "message with wrong arguments: TypeError"
