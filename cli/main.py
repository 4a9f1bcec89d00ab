"""The operator's commands."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.integrity import follow
from kit.tokens import Signer
from stack.plan import AUDIENCE, ISSUER
from stack.ports import DEFAULT, HOST, PortError, Ports
from stack.seed import OWNERS

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The operator's commands of the wallet.")

_LIFETIME_SECONDS = 12 * 3600.0


class SeedUser(StrEnum):
    """The users of the seed accounts."""

    ALICE = "alice"
    BOB = "bob"


@app.command()
def token(
    user: Annotated[SeedUser, typer.Option(help="whose token")],
    data: Annotated[Path, typer.Option(help="the data folder of the running stack")] = Path(".wallet"),
) -> None:
    """Prints a development token for one of the seed users, valid for twelve hours."""
    key = data / "keys" / "development.pem"
    if not key.exists():
        typer.echo(
            f"there is no development key in {data}: run `make up` first, or name its folder with DATA=…", err=True
        )
        raise typer.Exit(2)
    typer.echo(Signer.from_file(ISSUER, key, AUDIENCE).sign(OWNERS[user].user, _LIFETIME_SECONDS))


@app.command()
def integrity(
    port: Annotated[int, typer.Option(help="the PORT of the running stack")] = DEFAULT,
    admin: Annotated[str | None, typer.Option(help="the bank's admin address, http://…, of any other one")] = None,
) -> None:
    """Has the bank prove its ledger, while it is in use. Exits with 0: sound, 1: broken, 2: could not be proven."""
    try:
        address = admin or f"http://{HOST}:{Ports.derive(port).bank_admin}"
    except PortError as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(follow(address.rstrip("/")))
