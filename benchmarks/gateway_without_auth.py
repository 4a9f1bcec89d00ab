"""The gateway as anywhere, but that it believes whatever token it is shown and counts nobody's requests: `python -m
benchmarks.gateway_without_auth`, with the gateway's own settings.
"""

import runpy
import time
from typing import Final

from kit.auth.principal import Principal, Role, TokenVerifier

_SOMEBODY: Final = Principal(
    "nobody", "somebody", is_service=False, expires_at=time.time() + 1e6, roles=frozenset(Role)
)


async def _believe(_: TokenVerifier, __: str) -> Principal:
    return _SOMEBODY


if __name__ == "__main__":
    TokenVerifier.verify = _believe  # type: ignore[assignment]  # all that is different
    runpy.run_module("gateway", run_name="__main__")
