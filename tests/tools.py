"""Tools from outside Python, which a machine may lack."""

import os

import pytest


def need(tool: str, *, there: bool) -> None:
    """Skips the test, visibly, where the tool is missing. In CI, whose script installs it, the test fails instead."""
    if there:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{tool} is missing, which .ci/run installs")
    pytest.skip(f"{tool} is missing; .ci/run shows how to install it")
