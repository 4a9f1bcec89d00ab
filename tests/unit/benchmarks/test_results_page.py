import re
from pathlib import Path

import orjson
import pytest

from benchmarks import results_page
from benchmarks.__main__ import FIGURE_MODULES
from benchmarks.figure import Figure


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results_page, "FOLDER", tmp_path)
    for value in (0.7, 0.9, 0.6):
        results_page.keep_figure(
            Figure(figure="bank.a", value=value, unit="ratio", bar=0.8, details={"rounds": [1, 2]})
        )
    results_page.keep_figure(Figure(figure="live.b", value=120.0, unit="ms", better="lower", details={}))
    results_page.write_page(tmp_path)
    return tmp_path


def test_page_has_minimum_median_maximum_and_target(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert "| `bank.a` | 0.6 | 0.7 | 0.9 | ratio | at least 0.8: missed | 3 |" in text
    assert "| `live.b` | 120 | 120 | 120 | ms |  | 1 |" in text


def test_page_has_a_plot_of_ratios_and_of_times(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    for name, figure in (("ratios", "bank.a"), ("times", "live.b")):
        assert f"({name}.svg)" in text
        assert figure in (folder / f"{name}.svg").read_text()


def test_stored_result_has_time_python_version_and_details(folder: Path) -> None:
    line = orjson.loads((folder / "results.jsonl").read_bytes().splitlines()[0])
    assert line["details"] == {"rounds": [1, 2]}
    assert line["at"].endswith("Z")
    assert line["python"].startswith("3.")


def test_reference_page_defines_every_figure() -> None:
    reference = (results_page.FOLDER.parents[1] / "docs" / "reference" / "benchmarks.md").read_text()
    defined = re.findall(r"^\| `(\w+\.\w+)` \|", reference, re.MULTILINE)
    assert defined == [figure for module in FIGURE_MODULES for figure in module.FIGURES]
