"""How all of it is, at a glance: what each service says of itself, and the figures that matter."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from http import HTTPStatus
from typing import Any, Final

import httpx
import orjson
import typer
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_TIMEOUT_SECONDS: Final = 4.0
"""A service that checks what it stands on takes at most two."""

_TRANSFERS: Final = ("/wallet.bank.v1.BankService/TransferMoney", "/wallet.bank.v1.BankService/BatchTransferMoney")


class Overall(IntEnum):
    """How all services are, as the command's exit code."""

    READY = 0
    NOT_READY = 1
    SILENT = 2
    """Nobody answers at all."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a service says of itself.

    Attributes:
        state: `ready`, `not ready`, or `no answer`.
        checks: what it stands on, by name: `ok`, or the kind of failure.
        version: that runs.
        uptime_seconds: since its start.
    """

    state: str
    checks: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    uptime_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The services by name, and the figures by theirs; None is not known, since the service does not answer."""

    services: Mapping[str, Service]
    figures: Mapping[str, float | str | None]

    @property
    def overall(self) -> Overall:
        """Of all services together."""
        states = {service.state for service in self.services.values()}
        if states == {"no answer"}:
            return Overall.SILENT
        return Overall.READY if states == {"ready"} else Overall.NOT_READY


def status(admins: Mapping[str, str], *, as_json: bool) -> Overall:
    """Asks the services at these admin addresses, all at once, and shows what they say. It takes some seconds at the
    longest, whatever is away.
    """
    found = asyncio.run(ask(admins))
    typer.echo(orjson.dumps(asdict(found), option=orjson.OPT_INDENT_2).decode() if as_json else _table(found))
    return found.overall


async def ask(admins: Mapping[str, str]) -> Status:
    """What the services at these admin addresses say now."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
        answers = await asyncio.gather(*(_asked(http, admin.rstrip("/")) for admin in admins.values()))
    metrics = {name: _Metrics(text) for name, (_, text) in zip(admins, answers, strict=True)}
    services = {name: _service(ready, metrics[name]) for name, (ready, _) in zip(admins, answers, strict=True)}
    return Status(services, _figures(metrics))


async def _asked(http: httpx.AsyncClient, admin: str) -> tuple[dict[str, Any] | None, str]:
    """What `/health/ready` and `/metrics` say; None and nothing of who does not answer, or is none of ours."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            ready, metrics = await asyncio.gather(http.get(f"{admin}/health/ready"), http.get(f"{admin}/metrics"))
        if ready.status_code not in {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE} or not metrics.is_success:
            return None, ""
        said = ready.json()
        return {"state": str(said["status"]), "checks": dict(said["checks"])}, metrics.text
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, LookupError, TypeError):
        return None, ""


class _Metrics:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append(sample)

    def sum(self, name: str, **labels: str | Iterable[str]) -> float | None:
        """Of all samples of that name whose labels are, or are among, these; None if there is no such metric."""
        allowed = {label: {given} if isinstance(given, str) else set(given) for label, given in labels.items()}
        samples = self._samples.get(name)
        if samples is None:
            return None
        return sum(each.value for each in samples if all(each.labels[label] in of for label, of in allowed.items()))

    def label(self, name: str, label: str) -> str | None:
        """The value that a label has in the first sample that is not 0."""
        return next((each.labels[label] for each in self._samples.get(name, ()) if each.value), None)


def _service(ready: Mapping[str, Any] | None, metrics: _Metrics) -> Service:
    if ready is None:
        return Service("no answer")
    started = metrics.sum("process_start_time_seconds")
    uptime = None if started is None else round(time.time() - started, 1)
    return Service(ready["state"], ready["checks"], metrics.label("wallet_build_info", "version"), uptime)


def _figures(metrics: Mapping[str, _Metrics]) -> dict[str, float | str | None]:
    nothing = _Metrics("")
    bank, card, analytics, gateway = (metrics.get(name, nothing) for name in ("bank", "card", "analytics", "gateway"))
    compared = analytics.sum("wallet_analytics_compared_timestamp_seconds")
    return {
        "transfer_calls": bank.sum("wallet_rpc_duration_seconds_count", method=_TRANSFERS, code="OK"),
        "outbox_backlog": bank.sum("wallet_bank_outbox_backlog"),
        "outbox_age_seconds": bank.sum("wallet_bank_outbox_age_seconds"),
        "consumer_lag": analytics.sum("wallet_analytics_consumer_lag"),
        "accounts_incomplete": analytics.sum("wallet_analytics_accounts_incomplete"),
        "compared_seconds_ago": round(time.time() - compared, 1) if compared else None,
        "top_ups_open": card.sum("wallet_card_top_ups_open"),
        "top_ups_to_review": card.sum("wallet_card_top_ups_to_review"),
        "acquirer_circuit": card.label("wallet_card_acquirer_circuit", "wallet_card_acquirer_circuit"),
        "websockets": gateway.sum("wallet_gateway_websockets"),
        "event_streams": gateway.sum("wallet_gateway_event_streams"),
    }


_TITLES: Final = {
    "transfer_calls": "calls that transferred, since its start",
    "outbox_backlog": "operations that are not published yet",
    "outbox_age_seconds": "the oldest of them waits for (s)",
    "consumer_lag": "events that are not stored yet",
    "accounts_incomplete": "accounts whose history is incomplete",
    "compared_seconds_ago": "histories were compared (s ago)",
    "top_ups_open": "top-ups under way",
    "top_ups_to_review": "top-ups that need a person",
    "acquirer_circuit": "circuit to the acquirer",
    "websockets": "WebSockets",
    "event_streams": "streams of server-sent events",
}


def _table(found: Status) -> str:
    rows = [("service", "state", "since", "version", "what it stands on")]
    for name, service in found.services.items():
        checks = ", ".join(f"{check} {state}" for check, state in service.checks.items())
        rows.append((name, service.state, _duration(service.uptime_seconds), service.version or "", checks))
    figures = [(_TITLES[name], _number(value)) for name, value in found.figures.items()]
    return "\n".join([*_aligned(rows), "", *_aligned(figures)])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _number(value: float | str | None) -> str:
    if value is None:
        return "not known"
    return value if isinstance(value, str) else f"{value:,.0f}"


def _duration(seconds: float | None) -> str:
    """The two greatest units: `3 d 4 h`, `5 min 6 s`."""
    if seconds is None:
        return ""
    parts: list[str] = []
    rest = int(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or unit == "s" or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
