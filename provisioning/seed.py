"""Seed the development accounts (`seed.sql`) and users.

Usage:

    `BANK_DATABASE_URL=… IDENTITY_DATABASE_URL=… SEED_PASSWORD=… python -m provisioning.seed`
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
from argon2 import PasswordHasher
from pydantic import SecretStr

from kit.runtime.settings import DatabaseUrl, Settings


@dataclass(frozen=True, slots=True)
class SeededCustomer:
    """User id and account id of a seeded customer, as in `seed.sql`."""

    user: str
    account: str


CUSTOMERS: Final = {
    "alice": SeededCustomer("a11ce000-0000-4000-8000-000000000001", "123e4567-e89b-12d3-a456-426614174000"),
    "bob": SeededCustomer("b0b00000-0000-4000-8000-000000000002", "987e6543-e21b-34d3-c456-426614174999"),
}

STAFF: Final = {
    "operator": "0be7a702-0000-4000-8000-000000000003",
    "admin": "ad317000-0000-4000-8000-000000000004",
}
"""User ids of the seeded staff by user name. The role of each user is the user name in capital letters."""

_USERS: Final = {
    **{name: (owner.user, "CUSTOMER") for name, owner in CUSTOMERS.items()},
    **{name: (user, name.upper()) for name, user in STAFF.items()},
}
_INSERT_USER: Final = "INSERT INTO users (id, username, password_hash, role) VALUES ($1, $2, $3, $4)"


async def seed_accounts(url: str) -> None:
    """Insert the accounts of `seed.sql` into the migrated bank database at `url`. Safe to repeat."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(Path(__file__).with_name("seed.sql").read_text())
    finally:
        await connection.close()


async def seed_users(url: str, password: str) -> None:
    """Insert missing users into the migrated identity database at `url`, all with one password. Safe to repeat."""
    connection = await asyncpg.connect(url)
    try:
        existing = {row["username"] for row in await connection.fetch("SELECT username FROM users")}
        for name, (id_, role) in _USERS.items():
            if name not in existing:
                await connection.execute(_INSERT_USER, id_, name, PasswordHasher().hash(password), role)
    finally:
        await connection.close()


class SeedSettings(Settings):
    """Databases to seed, and the password of all seeded users."""

    bank_database_url: DatabaseUrl
    identity_database_url: DatabaseUrl
    seed_password: SecretStr


async def _seed(settings: SeedSettings) -> None:
    await seed_accounts(settings.bank_database_url.get_secret_value())
    await seed_users(settings.identity_database_url.get_secret_value(), settings.seed_password.get_secret_value())


if __name__ == "__main__":
    asyncio.run(_seed(SeedSettings.load()))
