"""The refused settings and the error message in docs/how-to/run-in-production.md match the code."""

import re

from stack.process import ROOT

PAGE = (ROOT / "docs" / "how-to" / "run-in-production.md").read_text()
ROW = re.compile(r"^\| (?P<names>`[^|]+) \|", re.MULTILINE)
EXAMPLE = re.compile(r"^ +(?P<prefix>[^:\n]+: )(?P<message>[A-Z_]+ .+)$", re.MULTILINE)
REFUSAL = re.compile(r'yield f?"(?P<names>[A-Z_]+(?: and [A-Z_]+)*) ')
MODULES = ("__main__.py", "settings.py")
SOURCES = [
    file.read_text()
    for file in (
        ROOT / "kit/runtime/settings.py",
        *(file for module in MODULES for file in ROOT.glob(f"*/{module}")),
        *(file for module in MODULES for file in ROOT.glob(f"subgraphs/*/service/{module}")),
    )
]


def test_production_page_lists_exactly_the_refused_settings() -> None:
    listed = {name for row in ROW.finditer(PAGE) for name in re.findall(r"`(\w+)`", row["names"])}
    refusals = (refusal for source in SOURCES for refusal in REFUSAL.finditer(source))
    assert listed == {name for refusal in refusals for name in refusal["names"].split(" and ")} != set()


def test_error_message_on_the_production_page_exists_in_the_code() -> None:
    example = EXAMPLE.search(PAGE)
    assert example
    for text in (example["prefix"], example["message"]):
        assert any(f'"{text}"' in source for source in SOURCES), f"no process writes: {text}"
