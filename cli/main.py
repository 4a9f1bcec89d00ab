"""The operator's commands."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from cli.integrity import follow, worst
from cli.replay import replay as run_replay
from cli.reports import Admin
from cli.status import status as show_status
from cli.tokens import NoTokenError, SeedUser, development_token
from cli.topups import retry as retry_top_up
from cli.topups import review
from provisioning.certificates import CertificateError, ensure_certificates
from stack.ports import DEFAULT, HOST, PortError, Ports

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The operator's commands of the wallet.")
topups = typer.Typer(no_args_is_help=True, help="Card top-ups.")
app.add_typer(topups, name="topups")

Port = Annotated[int, typer.Option(help="the PORT of the running stack")]
Data = Annotated[Path, typer.Option(help="the data folder of the running stack")]
Token = Annotated[
    str | None,
    typer.Option(envvar="WALLET_TOKEN", help="an admin's; by default that of the running stack's own admin"),
]
_DATA = Path(".wallet")
_SERVICES = ["bank", "card", "analytics", "identity", "gateway"]
_ADMINS = ("gateway", "bank", "card", "analytics", "identity")


@app.command()
def token(
    user: Annotated[SeedUser, typer.Option(help="whose token")],
    port: Port = DEFAULT,
    data: Data = _DATA,
) -> None:
    """Signs one of the seed users in at the running stack, and prints the access token, valid for twelve hours."""
    typer.echo(_development_token(user, _ports(port), data))


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
        pairs = ensure_certificates(folder, name, datetime.now(UTC))
    except CertificateError as error:
        typer.echo(f"not made: {error}", err=True)
        raise typer.Exit(2) from None
    for pair in pairs:
        typer.echo(f"{pair.name}: {'made' if pair.made else 'kept'}, {pair.certificate}, until {pair.until:%Y-%m-%d}")


@app.command()
def status(
    port: Port = DEFAULT,
    admin: Annotated[
        list[str] | None, typer.Option(help="of a service anywhere: bank=http://…, its admin address; again for each")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Shows how every service is, what it stands on, and the figures that matter. It works while any of them is away.

    Exits with 0: all are ready, 1: something is not, 2: nobody answers.
    """
    ports = dict(_ports(port).items())
    admins = {name: _local(ports[f"{name}_admin"]) for name in _ADMINS}
    if admin:
        admins = dict(_named(each) for each in admin)
    raise typer.Exit(show_status(admins, as_json=as_json))


@app.command()
def integrity(
    port: Port = DEFAULT,
    admin: Annotated[str | None, typer.Option(help="of one service alone: its admin address, http://…")] = None,
    token: Token = None,
    data: Data = _DATA,
) -> None:
    """Has the bank prove its ledger, card that no sum is lost between cards and accounts, and analytics that the
    history is the ledger's, while they are in use.

    Exits with 0: sound, 1: broken, 2: could not be proven.
    """
    if admin is not None:
        raise typer.Exit(follow(Admin(admin.rstrip("/"), token or "")))
    ports = _ports(port)
    token = token or _development_token(SeedUser.ADMIN, ports, data)
    services = {"bank": ports.bank_admin, "card": ports.card_admin, "analytics": ports.analytics_admin}
    raise typer.Exit(worst([follow(Admin(_local(port), token), name) for name, port in services.items()]))


@app.command()
def replay(
    port: Port = DEFAULT,
    admin: Annotated[str | None, typer.Option(help="analytics' admin address, http://…, of any other one")] = None,
    account: Annotated[UUID | None, typer.Option(help="this account alone")] = None,
    token: Token = None,
    data: Data = _DATA,
    *,
    all_operations: Annotated[
        bool,
        typer.Option("--all-operations", help="also mend what is wrong, and remove what the ledger does not have"),
    ] = False,
) -> None:
    """Has analytics pull from the bank whatever its history lacks. Safe to interrupt, and to run again.

    Exits with 0: complete, 1: the ledger lacks what it counts, 2: not finished.
    """
    ports = _ports(port)
    asked = _admin(admin, ports, ports.analytics_admin, token, data)
    raise typer.Exit(run_replay(asked, account, all_operations=all_operations))


@topups.command("review")
def review_top_ups(
    port: Port = DEFAULT,
    admin: Annotated[
        str | None, typer.Option(help="the card service's admin address, http://…, of any other one")
    ] = None,
    retry: Annotated[UUID | None, typer.Option(help="try the step again in which this top-up stopped")] = None,
    token: Token = None,
    data: Data = _DATA,
) -> None:
    """Shows the top-ups that need a person, with why; or has one of them tried again.

    Exits with 0: nothing to look at, or retried, 1: something, 2: not known, or no such top-up to look at.
    """
    ports = _ports(port)
    asked = _admin(admin, ports, ports.card_admin, token, data)
    raise typer.Exit(review(asked) if retry is None else retry_top_up(asked, retry))


def _admin(address: str | None, ports: Ports, port: int, token: str | None, data: Path) -> Admin:
    """A service of the running stack, or the one at another address, which no token of the stack is sent to."""
    if address is not None:
        return Admin(address.rstrip("/"), token or "")
    return Admin(_local(port), token or _development_token(SeedUser.ADMIN, ports, data))


def _development_token(user: SeedUser, ports: Ports, data: Path) -> str:
    try:
        return development_token(user, data, _local(ports.gateway))
    except NoTokenError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _ports(port: int) -> Ports:
    try:
        return Ports.derive(port)
    except PortError as error:
        raise typer.BadParameter(str(error)) from error


def _named(admin: str) -> tuple[str, str]:
    name, equals, address = admin.partition("=")
    if not equals:
        raise typer.BadParameter(f"{admin} is not name=http://…, such as bank=http://127.0.0.1:9101")
    return name, address


def _local(port: int) -> str:
    return f"http://{HOST}:{port}"
