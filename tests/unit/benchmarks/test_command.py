"""Command line of the benchmarks."""

import sys

import pytest

from benchmarks import __main__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *((f"--seconds {text}", "must be a number more than 0") for text in ("0", "-1", "nan", "long")),
        ("--seconds 0.5", "must be at least 1"),
        *((f"--soak {text}", "must be a number more than 0") for text in ("0", "-1", "inf")),
        *((f"--repeat {text}", "must be a whole number, at least 1") for text in ("0", "-1", "1.5")),
        ("--figure bank.none", "invalid choice"),
    ],
)
def test_invalid_option_is_refused_before_anything_starts(
    arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments.split()])
    monkeypatch.setattr(__main__, "measure_figures", None)
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
