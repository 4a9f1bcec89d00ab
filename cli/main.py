"""The operator's commands."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from cli.integrity import follow, worst
from cli.replay import replay as run_replay
from cli.topups import retry as retry_top_up
from cli.topups import review
from kit.certificates import CertificateError, provide
from kit.principal import Role
from kit.tokens import Signer
from stack.plan import AUDIENCE, ISSUER
from stack.ports import DEFAULT, HOST, PortError, Ports
from stack.seed import OWNERS

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The operator's commands of the wallet.")
topups = typer.Typer(no_args_is_help=True, help="Card top-ups.")
app.add_typer(topups, name="topups")

_LIFETIME_SECONDS = 12 * 3600.0
_SERVICES = ["bank", "card", "analytics", "identity", "gateway"]


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
    signer = Signer.from_file(ISSUER, key, AUDIENCE)
    typer.echo(signer.sign(OWNERS[user].user, _LIFETIME_SECONDS, [Role.CUSTOMER]))


@app.command()
def certificates(
    folder: Annotated[Path, typer.Option(help="where they are, and the authority that signs them")],
    name: Annotated[list[str], typer.Option(help="of a service, as its peers know it; again for each")] = _SERVICES,
) -> None:
    """Makes the certificates of mutual TLS: an authority, once, and a pair for each service that has none, or one in
    the last third of its life. Run it daily: the services take up new files by themselves.

    Exits with 0: all are there, 2: they cannot be made.
    """
    try:
        pairs = provide(folder, name, datetime.now(UTC))
    except CertificateError as error:
        typer.echo(f"not made: {error}", err=True)
        raise typer.Exit(2) from None
    for pair in pairs:
        typer.echo(f"{pair.name}: {'made' if pair.made else 'kept'}, {pair.certificate}, until {pair.until:%Y-%m-%d}")


@app.command()
def integrity(
    port: Annotated[int, typer.Option(help="the PORT of the running stack")] = DEFAULT,
    admin: Annotated[str | None, typer.Option(help="of one service alone: its admin address, http://…")] = None,
) -> None:
    """Has the bank prove its ledger, card that no sum is lost between cards and accounts, and analytics that the
    history is the ledger's, while they are in use.

    Exits with 0: sound, 1: broken, 2: could not be proven.
    """
    if admin is not None:
        raise typer.Exit(follow(admin.rstrip("/")))
    ports = _ports(port)
    services = {"bank": ports.bank_admin, "card": ports.card_admin, "analytics": ports.analytics_admin}
    raise typer.Exit(worst([follow(_local(port), name) for name, port in services.items()]))


@app.command()
def replay(
    port: Annotated[int, typer.Option(help="the PORT of the running stack")] = DEFAULT,
    admin: Annotated[str | None, typer.Option(help="analytics' admin address, http://…, of any other one")] = None,
    account: Annotated[UUID | None, typer.Option(help="this account alone")] = None,
    *,
    all_operations: Annotated[
        bool,
        typer.Option("--all-operations", help="also mend what is wrong, and remove what the ledger does not have"),
    ] = False,
) -> None:
    """Has analytics pull from the bank whatever its history lacks. Safe to interrupt, and to run again.

    Exits with 0: complete, 1: the ledger lacks what it counts, 2: not finished.
    """
    address = admin or _local(_ports(port).analytics_admin)
    raise typer.Exit(run_replay(address.rstrip("/"), account, all_operations=all_operations))


@topups.command("review")
def review_top_ups(
    port: Annotated[int, typer.Option(help="the PORT of the running stack")] = DEFAULT,
    admin: Annotated[
        str | None, typer.Option(help="the card service's admin address, http://…, of any other one")
    ] = None,
    retry: Annotated[UUID | None, typer.Option(help="try the step again in which this top-up stopped")] = None,
) -> None:
    """Shows the top-ups that need a person, with why; or has one of them tried again.

    Exits with 0: nothing to look at, or retried, 1: something, 2: not known, or no such top-up to look at.
    """
    address = (admin or _local(_ports(port).card_admin)).rstrip("/")
    raise typer.Exit(review(address) if retry is None else retry_top_up(address, retry))


def _ports(port: int) -> Ports:
    try:
        return Ports.derive(port)
    except PortError as error:
        raise typer.BadParameter(str(error)) from error


def _local(port: int) -> str:
    return f"http://{HOST}:{port}"
