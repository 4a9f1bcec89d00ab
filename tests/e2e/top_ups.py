"""Top-ups over REST, with the sandbox's test cards."""

from typing import Any
from uuid import uuid4

import httpx

from tests.e2e.users import User
from tests.waiting import until

GOOD, DECLINED, UNSURE = "4242424242424242", "4000000000000002", "4000000000010019"


CVV = "9" + "17"


FINAL = {"COMPLETED", "DECLINED", "VOIDED", "REFUNDED"}


def card(number: str, cvv: str | None = None) -> dict[str, Any]:
    amex = number.startswith("3")
    return {"number": number, "expiryMonth": 12, "expiryYear": 2040, "cvv": cvv or (f"{CVV}3" if amex else CVV)}


async def top_up(user: User, number: str, amount: str = "100.00", key: str | None = None) -> httpx.Response:
    return await user.http.post(
        f"/accounts/{user.account}/topup",
        json={"amount": amount, "card": card(number)},
        headers={"Idempotency-Key": key or str(uuid4())},
        timeout=30,
    )


async def final_top_up(user: User, location: str) -> dict[str, Any]:
    """Wait until the top-up is final, and return it."""
    seen: dict[str, Any] = {}

    async def is_final() -> bool:
        seen.update((await user.http.get(location)).json())
        return seen["status"] in FINAL

    await until(is_final, within=30)
    return seen
