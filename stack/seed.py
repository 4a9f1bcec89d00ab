"""Puts the test accounts of `seed.sql` into the bank's database: `BANK_DATABASE_URL=… python -m stack.seed`."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg


@dataclass(frozen=True, slots=True)
class Owner:
    """A test account of `seed.sql` and the user that owns it."""

    user: str
    account: str


OWNERS: Final = {
    "alice": Owner("a11ce000-0000-4000-8000-000000000001", "123e4567-e89b-12d3-a456-426614174000"),
    "bob": Owner("b0b00000-0000-4000-8000-000000000002", "987e6543-e21b-34d3-c456-426614174999"),
}


async def seed(url: str) -> None:
    """Runs `seed.sql` on the migrated database at `url`; safe to repeat."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(Path(__file__).with_name("seed.sql").read_text())
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(seed(os.environ["BANK_DATABASE_URL"]))
