"""`wallet status` on the whole system."""

import re

import httpx

from cli.status import OverallState, query_status
from stack.system import System
from tests.e2e.users import User
from tests.waiting import until


async def test_status_shows_every_service_and_figure(system: System, alice: User, bob: User) -> None:
    admins = {
        name: child.process.urls["admin"]
        for name, child in system.supervisor.children.items()
        if "admin" in child.process.urls
    }
    body = {"recipientId": bob.account, "amount": "1.00", "currency": "RUB"}
    headers = {"Idempotency-Key": "status"}
    assert (await alice.http.post(f"/accounts/{alice.account}/transfers", json=body, headers=headers)).is_success
    found = await query_status(admins)
    assert found.overall is OverallState.READY
    assert found.services.keys() == {"gateway", "bank", "card", "analytics", "identity"}
    assert all(service.version and service.uptime_seconds for service in found.services.values())
    # Every figure except `compared_seconds_ago` has a value, so the metric names are right.
    assert {name for name, value in found.figures.items() if value is None} <= {"compared_seconds_ago"}
    assert found.figures["transfer_calls"]
    assert found.figures["acquirer_circuit"] == "closed"

    async with httpx.AsyncClient(trust_env=False) as http:
        for name, limit in (("bank", 20), ("card", 10)):
            metrics = (await http.get(f"{admins[name]}/metrics")).text
            assert f"wallet_database_connections_limit {limit}.0\n" in metrics
            # The bank's outbox relay and the card service's listener use one connection each all the time.
            assert re.search(r"^wallet_database_connections_in_use [1-9]", metrics, re.MULTILINE)

    async def is_published() -> bool:
        return (await query_status(admins)).figures["outbox_backlog"] == 0

    await until(is_published)
