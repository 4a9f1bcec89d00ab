"""What a process says, of its own and of what the libraries in it say."""

import json
import subprocess
import sys

import pytest

PROCESS = """
import logging
import structlog
from kit import call, logs
from kit.settings import LogSettings

log = structlog.get_logger("ours")
logs.configure("service", LogSettings(log_format="{format}", log_level="INFO"))
call.current.set(call.Call("the-request"))
log.debug("not said")
log.info("ours", amount="1.00")
log.info("odd", half="\\ud800", keys={{1: 2**70}})
logging.getLogger("theirs").warning("theirs %s", 1)
try:
    raise KeyError("key")
except KeyError:
    log.exception("failed")
"""


def said(log_format: str) -> list[str]:
    """The lines of a process that says the above."""
    program = PROCESS.format(format=log_format)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
    assert done.stdout == b""
    return done.stderr.decode().splitlines()


class TestConfigure:
    def test_json_is_one_object_a_line_whoever_says_it(self) -> None:
        ours, odd, theirs, failed = map(json.loads, said("json"))
        for line, level, logger in ((ours, "info", "ours"), (theirs, "warning", "theirs"), (failed, "error", "ours")):
            assert (line["service"], line["request_id"]) == ("service", "the-request")
            assert (line["level"], line["logger"]) == (level, logger)
            assert line["timestamp"].endswith("Z")
        assert (ours["event"], ours["amount"], theirs["event"]) == ("ours", "1.00", "theirs 1")
        assert (odd["half"], odd["keys"]) == ("\ud800", {"1": 2**70})
        assert failed["exception"][0]["exc_type"] == "KeyError"

    @pytest.mark.parametrize("text", ["amount=1.00", "theirs 1", "KeyError"])
    def test_the_console_has_it_for_people(self, text: str) -> None:
        assert text in "\n".join(said("console"))
