"""What the services prove of all their data, as `wallet integrity` has them do."""

from typing import Any, Final

import httpx
import orjson

from kit.auth.principal import Role
from loadtests.target import Target
from provisioning.seed import STAFF

PROVERS: Final = ("bank", "card", "analytics")

_TIMEOUT_SECONDS: Final = 60.0  # between two lines
_TOKEN_SECONDS: Final = 3_600.0


async def prove(target: Target) -> dict[str, str]:
    """The verdict of each service: `sound`, `broken` with its laws, or `unavailable`. None where nobody signs for an
    admin.
    """
    if (signer := target.signer) is None:
        return {}
    headers = {"Authorization": f"Bearer {signer.sign(STAFF['admin'], _TOKEN_SECONDS, [Role.ADMIN])}"}
    async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
        return {name: await _proved(http, f"{target.admins[name]}/integrity") for name in PROVERS}


async def _proved(http: httpx.AsyncClient, url: str) -> str:
    last: dict[str, Any] = {}
    try:
        async with http.stream("GET", url) as answer:
            async for line in answer.raise_for_status().aiter_lines():
                last = orjson.loads(line)
    except httpx.HTTPError:
        return "unavailable"
    verdict: str = last.get("verdict", "unavailable")
    return f"broken: {', '.join(last['broken'])}" if verdict == "broken" else verdict
