"""The log lines of a running gateway."""

from tests.integration.gateway.gateway_process import Gateway
from tests.waiting import until


async def logs_since(gateway: Gateway, began: int) -> list[str]:
    """What the gateway has said since, all of it: a request of our own is its last word."""
    await gateway.http.get("/health/live", headers={"X-Request-Id": f"marker-{began}"})

    async def marked() -> list[str]:
        said = gateway.said[began:]
        return said if any(f"marker-{began}" in line for line in said) else []

    return await until(marked, every=0.005)
