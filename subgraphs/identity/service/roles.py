"""`python -m subgraphs.identity.service.roles grant USERNAME ROLE`: says what a user is from now on.

For whoever can reach the database (`IDENTITY_DATABASE_URL`), as migrations are: no call makes anybody an admin.
"""

import argparse
import asyncio
import sys

from pydantic import SecretStr

from kit.runtime.settings import Settings
from subgraphs.identity.service.adapters.repository import Repository, open_database
from subgraphs.identity.service.domain.model import Role

_NOBODY = 1


class RoleSettings(Settings):
    """Which database."""

    identity_database_url: SecretStr


async def grant(url: str, username: str, role: Role) -> int:
    """Gives a user a role; access tokens that are out keep what they say. The exit code."""
    async with open_database(url, max_connections=1) as database:
        user = await Repository(database).grant(username, role)
    if user is None:
        sys.stderr.write(f"there is no user {username}\n")
        return _NOBODY
    sys.stdout.write(f"{username} ({user.id}) is {role.lower()} from the next refresh or sign-in on\n")
    return 0


def main() -> int:
    """Runs the command line and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m subgraphs.identity.service.roles", description="What users are.")
    command = parser.add_subparsers(dest="command", required=True).add_parser("grant", help="say what a user is")
    command.add_argument("username")
    command.add_argument("role", choices=[role.lower() for role in Role])
    arguments = parser.parse_args()
    url = RoleSettings.load().identity_database_url.get_secret_value()
    return asyncio.run(grant(url, arguments.username, Role(arguments.role.upper())))


if __name__ == "__main__":
    sys.exit(main())
