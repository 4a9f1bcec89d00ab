"""Who may call the card service. Customers are further held to their own accounts and top-ups, by the service."""

from typing import Final

from kit.access import MOVERS, READERS, Policy

POLICY: Final[Policy] = {
    "ProcessCardTopUp": MOVERS,
    "GetTopUp": READERS,
    "BatchGetTopUps": READERS,
    "ListTopUps": READERS,
    "WatchTopUp": READERS,
}
