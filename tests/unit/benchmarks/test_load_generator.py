import os

import pytest

from benchmarks.load_generator import Call, LoadWindow, summarize_calls, write_line

WINDOW = LoadWindow(start=10.0, end=20.0)


def test_line_is_written_completely_if_the_pipe_accepts_only_a_part(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    write_line(b"a line of some length")
    assert capfd.readouterr().out == "a line of some length\n"


def test_transfers_count_in_proportion_to_the_part_of_their_call_in_the_window() -> None:
    calls = [
        Call(started=8.0, ended=12.0, transfers=100),  # half of the call is in the window
        Call(started=12.0, ended=13.0, transfers=100),  # all of it
        Call(started=19.0, ended=23.0, transfers=100),  # a quarter of it
        Call(started=1.0, ended=2.0, transfers=100),
        Call(started=5.0, ended=25.0, transfers=100),  # half of it
    ]
    assert summarize_calls(calls, WINDOW).transfers == 50 + 100 + 25 + 50


def test_transfers_outside_the_window_are_acknowledged() -> None:
    calls = [Call(started=1.0, ended=2.0, transfers=3), Call(started=12.0, ended=13.0, transfers=4)]
    assert summarize_calls(calls, WINDOW).acknowledged == 7


def test_latencies_are_those_of_calls_that_end_in_the_window() -> None:
    calls = [
        Call(started=9.0, ended=9.5, transfers=1),
        Call(started=9.5, ended=10.5, transfers=1),
        Call(started=19.5, ended=21.0, transfers=1),
    ]
    assert summarize_calls(calls, WINDOW).latencies_ms == [1_000.0]


def test_error_of_a_failed_run_is_kept() -> None:
    assert summarize_calls([], WINDOW, "UNAVAILABLE: gone").error == "UNAVAILABLE: gone"
