"""What a process says, of its own and of what the libraries in it say."""

import json
import subprocess
import sys

import pytest

PROCESS = """
import logging
import structlog
from pydantic import SecretBytes, SecretStr
from kit import call, logs
from kit.principal import Principal
from kit.settings import LogSettings
from kit.tracing import Trace

log = structlog.get_logger("ours")
logs.configure("service", LogSettings(log_format="{format}", log_level="INFO"))
log.info("early")
alice = Principal("users", "alice", is_service=False, expires_at=0)
call.current.set(call.Call("the-request", alice, "a token", trace=Trace("4bf92f3577b34da6a3ce929d0e0e4736")))
log.debug("not said")
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


def said(log_format: str) -> list[str]:
    """The lines of a process that says the above."""
    program = PROCESS.format(format=log_format)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
    assert done.stdout == b""
    return done.stderr.decode().splitlines()


class TestConfigure:
    def test_json_is_one_object_a_line_whoever_says_it(self) -> None:
        early, ours, odd, theirs, failed, failed_too, _ = map(json.loads, said("json"))
        assert early.keys() == {"event", "service", "level", "logger", "timestamp"}
        for line, level, logger in ((ours, "info", "ours"), (theirs, "warning", "theirs"), (failed, "error", "ours")):
            assert (line["service"], line["request_id"], line["caller"]) == ("service", "the-request", "alice")
            assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
            assert (line["level"], line["logger"]) == (level, logger)
            assert line["timestamp"].endswith("Z")
        assert (ours["event"], ours["amount"], theirs["event"]) == ("ours", "1.00", "theirs 1")
        assert (odd["half"], odd["keys"]) == ("\ud800", {"1": 2**70})
        for line in (failed, failed_too):
            assert line["exception"][0]["exc_type"] == "KeyError"

    @pytest.mark.parametrize("log_format", ["json", "console"])
    def test_what_is_secret_by_name_or_by_type_is_masked(self, log_format: str) -> None:
        assert "4242" not in "\n".join(said(log_format)).replace("4bf92f3577b34da6a3ce929d0e0e4736", "")

    def test_what_is_not_secret_stays(self) -> None:
        line = json.loads(said("json")[-1])
        for name in ("authorization", "Password", "access_token", "cardNumber", "webhook"):
            assert line[name] == "***"
        assert line["deep"] == [
            {"hidden": ["***"], "newTokens": "***"},
            {"number": "***", "cvv": "***", "brand": "VISA", "expiry": [12, {"CVC": "***"}]},
        ]
        assert (line["text"], line["keep"]) == ("two\nlines", "number")

    @pytest.mark.parametrize("text", ["amount=1.00", "theirs 1", "KeyError"])
    def test_the_console_has_it_for_people(self, text: str) -> None:
        assert text in "\n".join(said("console"))
