"""What production mode refuses is in its page."""

import re

from stack.process import ROOT

REFUSED = re.compile(r"^\| (?P<names>`[^|]+) \|", re.MULTILINE)
SAID = re.compile(r'yield f?"(?P<names>[A-Z_]+(?: and [A-Z_]+)*) ')


def test_whatever_is_refused_is_in_the_page_and_nothing_else() -> None:
    told = {
        name
        for row in REFUSED.finditer((ROOT / "docs" / "how-to" / "run-in-production.md").read_text())
        for name in re.findall(r"`(\w+)`", row["names"])
    }
    files = [
        ROOT / "kit/runtime/settings.py",
        *ROOT.glob("*/__main__.py"),
        *ROOT.glob("subgraphs/*/service/__main__.py"),
    ]
    found = (each for file in files for each in SAID.finditer(file.read_text()))
    assert told == {name for each in found for name in each["names"].split(" and ")} != set()
