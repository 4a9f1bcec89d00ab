"""Skips tests that need a program or a network feature that this machine does not have."""

import os
import socket
from typing import NoReturn

import pytest


def skip_without_tool(reason: str) -> NoReturn:
    """Skip the test because a tool is missing. In CI, which installs all tools, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, although .ci/run should have installed it")
    pytest.skip(f"{reason}; .ci/run shows how to install it")


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 address")
"""Mark of tests that listen on `[::1]` or `[::]`."""
