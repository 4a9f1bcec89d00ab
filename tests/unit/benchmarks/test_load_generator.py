"""What a process of the benchmark says is heard whole."""

import os

import pytest

from benchmarks import load_generator


def test_a_line_is_said_whole_however_little_the_pipe_takes_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    load_generator.answer(b"a line of some length")
    assert capfd.readouterr().out == "a line of some length\n"
