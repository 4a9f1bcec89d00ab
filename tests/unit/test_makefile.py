"""The Makefile, for macOS as for Linux: by tools that both have, as both have them."""

import re

from stack.process import ROOT

OF_LINUX_ALONE = (
    r"sed -i(?! '')|sed -r|readlink -f|realpath|date -d|date --|grep -P|xargs -r|stat -c|mktemp --|cp --|-printf"
)


def test_every_target_is_told_by_make_help_and_uses_no_tool_that_linux_alone_has() -> None:
    text = (ROOT / "Makefile").read_text()
    assert not re.findall(OF_LINUX_ALONE, text)
    assert not re.search(r"^\.ONESHELL|^SHELL|\$\(file |!=|::=", text, re.MULTILINE)  # macOS has GNU make 3.81
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
