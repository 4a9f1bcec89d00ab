"""Gateway without authentication: `python -m benchmarks.gateway_without_auth`, with the gateway's own settings.

It accepts every token as one fixed principal. Start it with GATEWAY_RATES=false to disable the rate limits too.
"""

import runpy
import time
from typing import Final

from kit.auth.principal import Principal, Role, TokenVerifier

_PRINCIPAL: Final = Principal(
    "nobody", "somebody", is_service=False, expires_at=time.time() + 1e6, roles=frozenset(Role)
)


async def _accept_any_token(_: TokenVerifier, __: str) -> Principal:
    return _PRINCIPAL


if __name__ == "__main__":
    TokenVerifier.verify = _accept_any_token  # type: ignore[assignment]  # the only difference from the gateway
    runpy.run_module("gateway", run_name="__main__")
