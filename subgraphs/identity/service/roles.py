"""`python -m subgraphs.identity.service.roles grant USERNAME ROLE`: change the role of a user.

The command needs access to the database (`IDENTITY_DATABASE_URL`), because no RPC can make a user an admin.
"""

import argparse
import asyncio
import sys
from typing import Final

import asyncpg

from kit.runtime.settings import DatabaseUrl, Settings
from subgraphs.identity.service.adapters.repository import Repository, open_database
from subgraphs.identity.service.domain.users import Role
from wallet.errors import Unavailable

_NOT_CHANGED: Final = 1


class RoleSettings(Settings):
    """Settings of this command."""

    identity_database_url: DatabaseUrl


async def grant_role(url: str, username: str, role: Role) -> int:
    """Change the role of a user and return the exit code. Access tokens keep the old role until they expire."""
    try:
        async with open_database(url, max_connections=1) as database:
            user = await Repository(database).set_role(username, role)
    except (Unavailable, asyncpg.PostgresError) as error:
        reason = error.__cause__ or error
        sys.stderr.write(f"IDENTITY_DATABASE_URL: the database refused the change or does not respond: {reason}\n")
        return _NOT_CHANGED
    if user is None:
        sys.stderr.write(f"there is no user {username}\n")
        return _NOT_CHANGED
    sys.stdout.write(f"{username} ({user.id}) is {role.lower()} from the next refresh or login\n")
    return 0


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m subgraphs.identity.service.roles", description="Manage the roles of users."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("grant", help="change the role of a user")
    command.add_argument("username")
    command.add_argument("role", choices=[role.lower() for role in Role])
    arguments = parser.parse_args()
    url = RoleSettings.load().identity_database_url.get_secret_value()
    return asyncio.run(grant_role(url, arguments.username, Role(arguments.role.upper())))


if __name__ == "__main__":
    sys.exit(main())
