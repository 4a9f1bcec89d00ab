"""Tests of the documentation: links, anchors, repository paths, module names and the length of README."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from stack.process import ROOT

MAX_README_LINES = 150
CREATED_AT_RUN_TIME = {"loadtests/reports"}
"""Folders that commands create and git ignores."""

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w.*<>…-]+(?:/[\w.*<>…-]+)*/?")
_SOURCE_FILE = re.compile(r"\.(?:avsc|graphql|json|jsonl|md|proto|py|sql|toml|xml|yaml|yml)$")
_MODULE = re.compile(r"python3? -m ([A-Za-z_][\w.<>-]*)")
_LOG_EVENT = re.compile(r"(?:(?<=[Ll]og `)|(?<=log event `))[^`]+|(?<=\"event\":\")[^\"]+")
_STEP = re.compile(r"^\| \d+ \| \[[^\]]+\]\(([^)]+)\) \| ([^|]+) \|", re.MULTILINE)
_TARGET = re.compile(r"(?:^|`|\(|=\w+ )make (?:-s )?([a-z-]+)", re.MULTILINE)
_STANDARD_MODULES = {"pip", "pytest", "venv"}


@cache
def tracked_files() -> frozenset[str]:
    """Return all tracked files that exist, and new files that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return frozenset(name for name in listed if (ROOT / name).is_file())


PAGES = sorted(name for name in tracked_files() if name.endswith(".md"))


def prose(page: Path) -> str:
    """Return the page without its fenced code blocks."""
    return _FENCE.sub("", page.read_text())


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of the page's headings, as GitHub generates them."""
    counts: dict[str, int] = {}
    found = set()
    for heading in _HEADING.findall(prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = counts.get(slug, 0)
        counts[slug] = number + 1
        found.add(f"{slug}-{number}" if number else slug)
    return frozenset(found)


def broken_links(page: Path) -> Iterator[str]:
    """Yield the relative links whose file or anchor does not exist."""
    for target in _LINK.findall(_CODE.sub("", prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            yield target


def named_paths(text: str, *, is_decision: bool = False) -> Iterator[str]:
    """Yield the repository paths in backticks. A `*`, `<name>` or `…` in a path stands for any text.

    Args:
        text: prose of a page.
        is_decision: whether the page is a decision. Decisions may name source files in folders that no longer exist.
    """
    top = {name.partition("/")[0] for name in tracked_files()}
    for code in _CODE.findall(text):
        if "/" not in code or not _PATH.fullmatch(code):
            continue
        if code.partition("/")[0] in top or (_SOURCE_FILE.search(code) and not is_decision):
            yield re.sub(r"<[^>]*>|…", "*", code)


def path_exists(page: Path, path: str) -> bool:
    """Return whether a file or folder has the path, from the root of the repository or from the page's folder."""
    if any(path.startswith(folder) for folder in CREATED_AT_RUN_TIME):
        return True
    return any(any(folder.glob(path.rstrip("/"))) for folder in (ROOT, page.parent))


@cache
def is_logged(event: str) -> bool:
    """Return whether the source of a service contains the text of the log event."""
    sources = (name for name in tracked_files() if re.match(r"(?:gateway|kit|subgraphs)/.*\.py$", name))
    return any(f'"{event}"' in (ROOT / name).read_text() for name in sources)


def warnings_and_errors() -> Iterator[str]:
    """Yield the log events of warnings and errors in the sources of the services."""
    for name in sorted(tracked_files()):
        if re.match(r"(?:gateway|kit|subgraphs)/.*\.py$", name):
            for node in ast.walk(ast.parse((ROOT / name).read_text())):
                match node:
                    case ast.Call(
                        func=ast.Attribute(attr="warning" | "error" | "exception" | "critical"),
                        args=[ast.Constant(value=str(event)), *_],
                    ):
                        yield event


def module_exists(module: str) -> bool:
    """Return whether `python -m` can run the module."""
    pattern = re.sub(r"<[^>]*>", "*", module).rstrip(".").replace(".", "/")
    return any(any(ROOT.glob(pattern + suffix)) for suffix in (".py", "/__main__.py"))


@pytest.mark.parametrize("name", PAGES)
def test_relative_links_and_anchors_of_the_page_resolve(name: str) -> None:
    assert list(broken_links(ROOT / name)) == []


@pytest.mark.parametrize("name", PAGES)
def test_repository_paths_in_the_page_exist(name: str) -> None:
    page = ROOT / name
    paths = named_paths(prose(page), is_decision=name.startswith("docs/decisions/"))
    assert [path for path in paths if not path_exists(page, path)] == []


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("docs/")])
def test_log_events_that_the_page_quotes_are_in_the_code(name: str) -> None:
    quoted = set(_LOG_EVENT.findall((ROOT / name).read_text()))
    assert sorted(event for event in quoted if not is_logged(event)) == []


def test_every_warning_and_error_is_on_a_page_for_operators() -> None:
    pages = "".join((ROOT / name).read_text() for name in PAGES if name.startswith(("docs/how-to/", "docs/reference/")))
    events = set(warnings_and_errors())
    assert len(events) > 50
    assert sorted(event for event in events if f"`{event}`" not in pages) == []


@pytest.mark.parametrize("name", PAGES)
def test_modules_that_the_page_runs_exist(name: str) -> None:
    modules = set(_MODULE.findall((ROOT / name).read_text())) - _STANDARD_MODULES
    assert [module for module in sorted(modules) if not module_exists(module)] == []


def test_functions_on_the_page_of_a_transfer_are_in_the_linked_files() -> None:
    page = ROOT / "docs/explanation/life-of-a-transfer.md"
    steps = _STEP.findall(page.read_text())
    missing = [
        f"{file}: {name}"
        for file, names in steps
        for name in _CODE.findall(names)
        if not re.search(rf"(?:class|def) {name.rpartition('.')[2]}\b", (page.parent / file).read_text())
    ]
    assert (len(steps) > 0, missing) == (True, [])


def test_make_targets_that_the_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for name in PAGES for target in _TARGET.findall((ROOT / name).read_text())}
    assert named - targets == set()


def test_every_page_of_the_documentation_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target.partition("#")[0]).resolve() for target in _LINK.findall(index.read_text())}
    pages = {ROOT / name for name in PAGES if name.startswith("docs/") and not name.startswith("docs/decisions/")}
    assert pages - {index} <= listed


def test_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


def test_link_checker_reports_missing_files_and_anchors(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n\n[good](#a-title) [bad](#no-title) [gone](gone.md) `[code](gone.md)`\n")
    assert list(broken_links(page)) == ["#no-title", "gone.md"]


def test_path_checker_reports_missing_paths(tmp_path: Path) -> None:
    text = "`kit/none.py`, `kit/rpc/`, `application/json`, `subgraphs/<name>/client/`, `nowhere/gone.py`"
    paths = list(named_paths(text))
    assert [path for path in paths if not path_exists(tmp_path / "page.md", path)] == ["kit/none.py", "nowhere/gone.py"]
    assert not module_exists("subgraphs.none.service")
