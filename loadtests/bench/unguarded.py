"""The gateway as anywhere, but that it believes whatever token it is shown and counts nobody's requests: `python -m
loadtests.bench.unguarded`, with the gateway's own settings.
"""

import time
from functools import partial
from typing import Final

from gateway.__main__ import Settings, serve
from kit import logs, process
from kit.principal import Principal, Role, Verifier

_SOMEBODY: Final = Principal(
    "nobody", "somebody", is_service=False, expires_at=time.time() + 1e6, roles=frozenset(Role)
)


async def _believe(_: Verifier, __: str) -> Principal:
    return _SOMEBODY


if __name__ == "__main__":
    Verifier.verify = _believe  # type: ignore[assignment]  # all that is different
    settings = Settings.load()
    logs.configure("unguarded", settings)
    process.run(partial(serve, settings))
