"""Log lines of a gateway process."""

from tests.integration.gateway.gateway_process import Gateway
from tests.waiting import until


async def logs_since(gateway: Gateway, start: int) -> list[str]:
    """Return the log lines from index `start` on.

    A marker request shows that all earlier lines have arrived.
    """
    await gateway.http.get("/health/live", headers={"X-Request-Id": f"marker-{start}"})

    async def lines_with_marker() -> list[str]:
        lines = gateway.log_lines[start:]
        return lines if any(f"marker-{start}" in line for line in lines) else []

    return await until(lines_with_marker, every=0.005)
