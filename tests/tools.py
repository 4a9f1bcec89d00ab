"""Tools from outside Python, which may be missing."""

import os
from typing import NoReturn

import pytest


def skip_without_tool(reason: str) -> NoReturn:
    """Skip the test because a tool is missing. In CI, which installs all tools, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; .ci/run installs it")
    pytest.skip(f"{reason}; .ci/run shows how to install it")
