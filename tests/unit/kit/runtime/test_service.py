"""Start of a process."""

import asyncio
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from kit.runtime import process
from kit.runtime.addresses import open_listener
from kit.runtime.service import run_service
from kit.runtime.settings import CallSettings, LogSettings, TracingSettings
from kit.telemetry import logs


class ProcessSettings(CallSettings, LogSettings, TracingSettings):
    pass


async def serve(settings: ProcessSettings, stop: asyncio.Event) -> None:
    assert settings.call_max_per_caller == 7
    assert not stop.is_set()


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(main: Any) -> None:
        with asyncio.Runner() as runner:
            runner.run(main(asyncio.Event()))

    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr(process, "run", run)


def test_deprecated_setting_is_used_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALL_LIMIT_OF_ONE", "7")
    with capture_logs() as events:
        run_service("test", ProcessSettings, serve)
    assert [(event["event"], event["name"], event["use"]) for event in events] == [
        ("deprecated setting", "CALL_LIMIT_OF_ONE", "CALL_MAX_PER_CALLER")
    ]


def test_removed_setting_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithRemovedName(ProcessSettings):
        removed_names: ClassVar[frozenset[str]] = frozenset({"example_limit"})

    monkeypatch.setenv("CALL_MAX_PER_CALLER", "7")
    monkeypatch.setenv("EXAMPLE_LIMIT", "7")
    with capture_logs() as events:
        run_service("test", WithRemovedName, serve)
    assert [(event["event"], event["name"]) for event in events] == [("removed setting has no effect", "EXAMPLE_LIMIT")]


def test_address_that_cannot_be_used_ends_the_process_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def listen(settings: ProcessSettings, stop: asyncio.Event) -> None:
        open_listener("192.0.2.1:8000")

    with capture_logs() as events, pytest.raises(SystemExit) as end:
        run_service("test", ProcessSettings, listen)
    assert end.value.code == 1
    assert [(event["event"], event["log_level"]) for event in events] == [("process cannot listen", "critical")]
    assert events[0]["error"].startswith("cannot listen on 192.0.2.1:8000: ")


def test_setting_with_its_current_name_causes_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALL_MAX_PER_CALLER", "7")
    with capture_logs() as events:
        run_service("test", ProcessSettings, serve)
    assert events == []
