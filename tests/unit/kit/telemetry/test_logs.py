"""Logs of a process and of its libraries: format, context and redaction."""

import json
import subprocess
import sys

import pytest

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
log.debug("not run_and_read_logs")
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
    authorization="Bearer 4242", Password="4242", access_token="4242", cardNumber=4242, webhook=SecretStr("4242"),
    deep=({{"hidden": [SecretBytes(b"4242")], "newTokens": ["4242"]}}, card), text="two\\nlines", keep="number",
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


def run_and_read_logs(log_format: str, program: str = PROCESS) -> list[str]:
    """Run the program and return the lines of its standard error."""
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
        assert (odd["half"], odd["keys"]) == ("\ud800", {"1": 2**70})
        for line in (failed, failed_too):
            assert line["exception"][0]["exc_type"] == "KeyError"

    @pytest.mark.parametrize("log_format", ["json", "console"])
    def test_fields_that_are_secret_by_name_or_type_are_redacted(self, log_format: str) -> None:
        assert "4242" not in "\n".join(run_and_read_logs(log_format)).replace("4bf92f3577b34da6a3ce929d0e0e4736", "")

    def test_other_fields_are_not_redacted(self) -> None:
        line = json.loads(run_and_read_logs("json")[-1])
        for name in ("authorization", "Password", "access_token", "cardNumber", "webhook"):
            assert line[name] == "***"
        assert line["deep"] == [
            {"hidden": ["***"], "newTokens": "***"},
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
