"""Tools from outside Python, which a machine may lack."""

import os
from typing import NoReturn

import pytest


def lacking(why: str) -> NoReturn:
    """Skips the test, visibly, because a tool is missing. In CI, whose script installs it, the test fails instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{why}; .ci/run installs it")
    pytest.skip(f"{why}; .ci/run shows how to install it")
