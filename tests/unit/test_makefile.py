"""The Makefile works on macOS and Linux, and `make help` lists its targets."""

import re

from stack.process import ROOT

LINUX_ONLY = (
    r"sed -i(?! '')|sed -r|readlink -f|realpath|date -d|date --|grep -P|xargs -r|stat -c|mktemp --|cp --|-printf"
)


MAKEFILE = (ROOT / "Makefile").read_text()


def test_makefile_uses_no_linux_only_option() -> None:
    assert not re.findall(LINUX_ONLY, MAKEFILE)


def test_makefile_uses_no_feature_that_gnu_make_3_81_lacks() -> None:
    assert not re.search(r"^\.ONESHELL|^SHELL|\$\(file |!=|::=", MAKEFILE, re.MULTILINE)  # macOS has GNU make 3.81


def test_every_phony_target_is_listed_by_make_help() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
