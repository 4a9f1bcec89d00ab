"""Runs the integrity checks of the services, as `wallet integrity` does."""

from typing import Any, Final

import httpx
import orjson

from kit.auth.principal import Role
from loadtests.target import Target
from provisioning.seed import STAFF

SERVICES: Final = ("bank", "card", "analytics")

_TIMEOUT_SECONDS: Final = 60.0  # maximum time between two lines of the response
_TOKEN_SECONDS: Final = 3_600.0


async def check_integrity(target: Target) -> dict[str, str]:
    """Return the verdict of each service: `sound`, `unavailable`, or `broken` with the violated invariants.

    The result is empty if the target has no key for signing an administrator's token.
    """
    if (signer := target.signer) is None:
        return {}
    headers = {"Authorization": f"Bearer {signer.sign(STAFF['admin'], _TOKEN_SECONDS, [Role.ADMIN])}"}
    async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
        return {name: await _read_verdict(http, f"{target.admins[name]}/integrity") for name in SERVICES}


async def _read_verdict(http: httpx.AsyncClient, url: str) -> str:
    last: dict[str, Any] = {}
    try:
        async with http.stream("GET", url) as response:
            async for line in response.raise_for_status().aiter_lines():
                last = orjson.loads(line)
    except httpx.HTTPError:
        return "unavailable"
    verdict: str = last.get("verdict", "unavailable")
    return f"broken: {', '.join(last['broken'])}" if verdict == "broken" else verdict
