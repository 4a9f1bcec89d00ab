"""Puts the test accounts of `seed.sql` into the bank's database, and the development users into identity's.

`BANK_DATABASE_URL=… IDENTITY_DATABASE_URL=… SEED_PASSWORD=… python -m provisioning.seed`
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
from argon2 import PasswordHasher
from pydantic import SecretStr

from kit.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Owner:
    """A test account of `seed.sql` and the user that owns it."""

    user: str
    account: str


OWNERS: Final = {
    "alice": Owner("a11ce000-0000-4000-8000-000000000001", "123e4567-e89b-12d3-a456-426614174000"),
    "bob": Owner("b0b00000-0000-4000-8000-000000000002", "987e6543-e21b-34d3-c456-426614174999"),
}

STAFF: Final = {
    "operator": "0be7a702-0000-4000-8000-000000000003",
    "admin": "ad317000-0000-4000-8000-000000000004",
}
"""The users who look after the system, each of the role of that name."""

_USERS: Final = {
    **{name: (owner.user, "CUSTOMER") for name, owner in OWNERS.items()},
    **{name: (user, name.upper()) for name, user in STAFF.items()},
}
_ADD: Final = "INSERT INTO users (id, username, password_hash, role) VALUES ($1, $2, $3, $4)"


async def seed_accounts(url: str) -> None:
    """Runs `seed.sql` on the migrated database at `url`; safe to repeat."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(Path(__file__).with_name("seed.sql").read_text())
    finally:
        await connection.close()


async def seed_users(url: str, password: str) -> None:
    """Makes those of the users that are not there in the migrated database at `url`, with one password for all."""
    connection = await asyncpg.connect(url)
    try:
        known = {row["username"] for row in await connection.fetch("SELECT username FROM users")}
        for name, (id_, role) in _USERS.items():
            if name not in known:
                await connection.execute(_ADD, id_, name, PasswordHasher().hash(password), role)
    finally:
        await connection.close()


class SeedSettings(Settings):
    """Which databases, and the one password."""

    bank_database_url: SecretStr
    identity_database_url: SecretStr
    seed_password: SecretStr


async def _seed(settings: SeedSettings) -> None:
    await seed_accounts(settings.bank_database_url.get_secret_value())
    await seed_users(settings.identity_database_url.get_secret_value(), settings.seed_password.get_secret_value())


if __name__ == "__main__":
    asyncio.run(_seed(SeedSettings.load()))
