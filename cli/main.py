"""The `wallet` command line for operators."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import typer

from cli.admin_client import AdminEndpoint
from cli.integrity import check_integrity, worst_result
from cli.ledger import begin_epoch, show_epoch
from cli.options import parse_admin, parse_block, parse_id, parse_named_admin, parse_port, parse_user
from cli.redate import RedateResult
from cli.redate import redate as redate_ledger
from cli.replay import ReplayResult, replay_history
from cli.status import show_status
from cli.tokens import NoTokenError, SeedUser, development_token
from cli.topups import lift_block, list_blocks, list_reviews, retry_top_up
from provisioning.certificates import CertificateError, ensure_certificates
from stack.ports import HOST, PortError, Ports
from stack.running import NotFoundError, find_system

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Commands for the operators of the wallet.")
topups = typer.Typer(no_args_is_help=True, help="Card top-ups.")
app.add_typer(topups, name="topups")
ledger = typer.Typer(no_args_is_help=True, help="The bank's ledger.")
app.add_typer(ledger, name="ledger")

Port = Annotated[
    int | None,
    typer.Option(
        parser=parse_port,
        metavar="PORT",
        help="port of the running stack's gateway: the PORT of `make up`. Needed if several stacks run.",
    ),
]
Data = Annotated[Path | None, typer.Option(help="data folder of the running stack. Needed if several stacks run.")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="WALLET_TOKEN",
        help="access token of an admin; default, without an address: the token of the running stack's seeded admin",
    ),
]


def _admin_option(service: str) -> Any:
    help_text = f"admin address of {service}, http://…; default: the address in the running stack"
    return typer.Option(parser=parse_admin, metavar="URL", help=help_text)


BankAdmin = Annotated[str | None, _admin_option("the bank")]
AnalyticsAdmin = Annotated[str | None, _admin_option("analytics")]
CardAdmin = Annotated[str | None, _admin_option("card")]
_SERVICES = ["bank", "card", "analytics", "identity", "gateway"]
_ADMINS = ("gateway", "bank", "card", "analytics", "identity")


@app.command()
def token(
    user: Annotated[
        SeedUser, typer.Option(parser=parse_user, metavar="|".join(SeedUser), help="user to log in as")
    ] = SeedUser.ALICE,
    port: Port = None,
    data: Data = None,
) -> None:
    """Log in at the running stack as a seeded user and print the access token, valid for twelve hours."""
    typer.echo(_development_token(user, *_find_stack(port, data)))


@app.command()
def certificates(
    folder: Annotated[Path, typer.Option(help="folder of the certificates and of the authority that signs them")],
    name: Annotated[
        list[str], typer.Option(help="host name of a service; repeat the option for each service")
    ] = _SERVICES,
) -> None:
    """Create or renew the certificates for mutual TLS.

    Creates the authority once, and a certificate and key for each service that has none. Renews certificates in the
    last third of their lifetime. Run it daily: running services load new files without a restart.

    Exit codes: 0 all certificates are valid, 2 a certificate cannot be created.
    """
    try:
        results = ensure_certificates(folder, name, datetime.now(UTC))
    except CertificateError as error:
        typer.echo(f"certificates cannot be created: {error}", err=True)
        raise typer.Exit(2) from None
    for each in results:
        action = "created" if each.is_new else "kept"
        typer.echo(f"{each.name}: {action}, {each.certificate}, valid until {each.valid_until:%Y-%m-%d}")


@app.command()
def status(
    port: Port = None,
    admin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL",
            help="show this service instead of the running stack, such as bank=http://…; "
            "repeat the option for each service",
        ),
    ] = None,
    data: Data = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show the state of every service, its dependencies and the key figures, also while some services are down.

    Exit codes: 0 all services are ready, 1 some are not, 2 no service responds.
    """
    if admin:
        admins = dict(parse_named_admin(each) for each in admin)
    else:
        ports = dict((_find_stack(port, data)[0]).items())
        admins = {name: _local_url(ports[f"{name}_admin"]) for name in _ADMINS}
    raise typer.Exit(show_status(admins, as_json=as_json))


@app.command()
def integrity(
    port: Port = None,
    admin: Annotated[
        str | None,
        typer.Option(
            parser=parse_admin,
            metavar="URL",
            help="admin address of one service, http://…; default: all services of the running stack",
        ),
    ] = None,
    token: Token = None,
    data: Data = None,
) -> None:
    """Check all data while the services run.

    The bank checks its ledger, card checks that no amount is lost between cards and accounts, and analytics checks
    that the history equals the ledger.

    Exit codes: 0 sound, 1 broken (there are violations), 2 not proven (a service refuses the call or is down, its
    database or another service is unavailable, or another check is running).
    """
    if admin is not None:
        raise typer.Exit(check_integrity(AdminEndpoint(admin, token or "")))
    ports, data = _find_stack(port, data)
    token = token or _development_token(SeedUser.ADMIN, ports, data)
    services = {"bank": ports.bank_admin, "card": ports.card_admin, "analytics": ports.analytics_admin}
    results = [check_integrity(AdminEndpoint(_local_url(port), token), name) for name, port in services.items()]
    raise typer.Exit(worst_result(results))


@app.command()
def replay(
    port: Port = None,
    admin: AnalyticsAdmin = None,
    account: Annotated[
        UUID | None, typer.Option(parser=parse_id, metavar="UUID", help="replay this account only")
    ] = None,
    token: Token = None,
    data: Data = None,
    *,
    all_operations: Annotated[
        bool,
        typer.Option(
            "--all-operations", help="compare every row: replace wrong rows, remove rows that the ledger does not have"
        ),
    ] = False,
) -> None:
    """Copy missing operations from the ledger to the history. Safe to interrupt and to repeat.

    Exit codes: 0 complete, 1 the ledger lacks operations that an account's version includes, 2 not finished.
    """
    endpoint = _admin_endpoint(admin, port, "analytics", token, data)
    raise typer.Exit(replay_history(endpoint, account, all_operations=all_operations))


@app.command()
def redate(
    port: Port = None,
    admin: BankAdmin = None,
    history_admin: AnalyticsAdmin = None,
    token: Token = None,
    data: Data = None,
    *,
    apply: Annotated[bool, typer.Option("--apply", help="change the dates, and replay the history")] = False,
) -> None:
    """Give new dates to operations that are dated in the future. Without --apply, only count them.

    The new date is the time in the transfer's id. But if this time is in the future, or earlier than the previous
    operation of one of the transfer's two accounts, the new date is that of the later of the two previous operations.
    Versions and balances do not change. The bank records every change and the administrator who made it in its table
    `redatings`. Other transfers wait until all new dates are committed. Then the history is replayed, so that it has
    the new dates.

    Exit codes: 0 nothing is dated in the future (any more), 1 some operations are dated in the future and were not
    changed, 2 not finished.
    """
    bank = _admin_endpoint(admin, port, "bank", token, data)
    result = redate_ledger(bank, apply=apply)
    if not apply or result is not RedateResult.DONE:
        raise typer.Exit(result)
    history = _admin_endpoint(history_admin, port, "analytics", token, data)
    replayed = replay_history(history, None, all_operations=True)
    raise typer.Exit(RedateResult.DONE if replayed is ReplayResult.COMPLETE else RedateResult.NOT_FINISHED)


@ledger.command("epoch")
def show_ledger_epoch(
    port: Port = None,
    admin: BankAdmin = None,
    token: Token = None,
    data: Data = None,
) -> None:
    """Show the ledger's epoch, when it began, and why.

    An epoch is one uninterrupted sequence of operations. A restore from an older backup begins another epoch.

    Exit codes: 0 shown, 2 the bank or its database is down.
    """
    raise typer.Exit(show_epoch(_admin_endpoint(admin, port, "bank", token, data)))


@ledger.command("restored")
def begin_ledger_epoch(
    port: Port = None,
    admin: BankAdmin = None,
    token: Token = None,
    data: Data = None,
) -> None:
    """Begin a new epoch after the ledger was restored from a backup.

    Analytics then rebuilds the history from the ledger, and cursors of the previous epoch are refused.

    Exit codes: 0 a new epoch began, 2 the bank or its database is down, or another epoch began first.
    """
    raise typer.Exit(begin_epoch(_admin_endpoint(admin, port, "bank", token, data)))


@topups.command("review")
def review_top_ups(
    port: Port = None,
    admin: CardAdmin = None,
    retry: Annotated[
        UUID | None, typer.Option(parser=parse_id, metavar="UUID", help="retry the step in which this top-up stopped")
    ] = None,
    token: Token = None,
    data: Data = None,
    *,
    after_restore: Annotated[
        bool,
        typer.Option(
            "--after-restore",
            help="first compare all completed top-ups with a restored ledger: "
            "add those whose deposit the ledger lacks, and remove those whose deposit it has again",
        ),
    ] = False,
) -> None:
    """List the top-ups that need manual review, each with the reason, or retry one of them.

    Exit codes: 0 the list is empty or the retry started, 1 the list is not empty, 2 the service is down, or
    the top-up is not under review.
    """
    endpoint = _admin_endpoint(admin, port, "card", token, data)
    raise typer.Exit(
        list_reviews(endpoint, after_restore=after_restore) if retry is None else retry_top_up(endpoint, retry)
    )


@topups.command("declines")
def show_declines(
    port: Port = None,
    admin: CardAdmin = None,
    lift: Annotated[
        str | None,
        typer.Option(parser=parse_block, metavar="ID", help="end the block with this id, such as customer/01a1…"),
    ] = None,
    token: Token = None,
    data: Data = None,
) -> None:
    """List the customers, addresses and cards that are blocked after too many declined cards, or lift a block.

    The service stores who lifted a block. An operator's token is enough.

    Exit codes: 0 the list is empty or the block is lifted, 1 the list is not empty, 2 the service is down, or there
    is no such block.
    """
    endpoint = _admin_endpoint(admin, port, "card", token, data)
    raise typer.Exit(list_blocks(endpoint) if lift is None else lift_block(endpoint, lift))


def _admin_endpoint(
    address: str | None,
    port: int | None,
    service: Literal["bank", "card", "analytics"],
    token: str | None,
    data: Path | None,
) -> AdminEndpoint:
    """Return the endpoint of a service; a token of the running stack is never sent to another address.

    Args:
        address: address of the service; None for the running stack.
        port: port of the running stack's gateway; None if only one stack runs.
        service: name of the service.
        token: access token; None for that of the seeded admin.
        data: data folder of the running stack; None if only one stack runs.
    """
    if address is not None:
        return AdminEndpoint(address, token or "")
    ports, data = _find_stack(port, data)
    admin_port = dict(ports.items())[f"{service}_admin"]
    return AdminEndpoint(_local_url(admin_port), token or _development_token(SeedUser.ADMIN, ports, data))


def _development_token(user: SeedUser, ports: Ports, data: Path) -> str:
    try:
        return development_token(user, data, _local_url(ports.gateway))
    except NoTokenError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _find_stack(port: int | None, data: Path | None) -> tuple[Ports, Path]:
    """Return the ports and the data folder of the running stack."""
    try:
        if port is not None:
            Ports.derive(port)  # refuses a port that cannot be one
        system = find_system(data, port)
    except PortError as error:
        raise typer.BadParameter(str(error)) from error
    except NotFoundError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    return Ports.derive(system.port), system.data


def _local_url(port: int) -> str:
    return f"http://{HOST}:{port}"
