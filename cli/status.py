"""State of all services: readiness, dependencies and key figures, read from their admin interfaces."""

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
"""Time limit for one service. Its own readiness checks take at most two seconds."""

_TRANSFERS: Final = ("/wallet.bank.v1.BankService/TransferMoney", "/wallet.bank.v1.BankService/BatchTransferMoney")


class OverallState(IntEnum):
    """State of all services together, used as the exit code."""

    READY = 0
    NOT_READY = 1
    UNREACHABLE = 2
    """No service responds."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """State of one service.

    Attributes:
        state: `ready`, `not ready`, or `no answer`.
        checks: state of each dependency by name: `ok` or the kind of failure.
        version: version of the running code.
        uptime_seconds: seconds since the process started.
    """

    state: str
    checks: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    uptime_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Services and figures by name. A figure is None while the service that reports it does not respond."""

    services: Mapping[str, ServiceState]
    figures: Mapping[str, float | str | None]

    @property
    def overall(self) -> OverallState:
        """Combined state of all services."""
        states = {service.state for service in self.services.values()}
        if states == {"no answer"}:
            return OverallState.UNREACHABLE
        return OverallState.READY if states == {"ready"} else OverallState.NOT_READY


def show_status(admins: Mapping[str, str], *, as_json: bool) -> OverallState:
    """Query all services concurrently and print their state. Takes a few seconds at most, even if services are down.

    Args:
        admins: admin address of each service by name.
        as_json: print JSON instead of a table.
    """
    status = asyncio.run(query_status(admins))
    typer.echo(orjson.dumps(asdict(status), option=orjson.OPT_INDENT_2).decode() if as_json else _table(status))
    return status.overall


async def query_status(admins: Mapping[str, str]) -> Status:
    """Return the current state of the services at these admin addresses, by name."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
        answers = await asyncio.gather(*(_query(http, admin.rstrip("/")) for admin in admins.values()))
    metrics = {name: each for name, (_, each) in zip(admins, answers, strict=True)}
    services = {name: _service_state(ready, metrics[name]) for name, (ready, _) in zip(admins, answers, strict=True)}
    return Status(services, _figures(metrics))


async def _query(http: httpx.AsyncClient, admin: str) -> tuple[dict[str, Any] | None, "_Metrics"]:
    """Return a service's readiness and metrics; None and no metrics if no wallet service responds at the address."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            ready, metrics = await asyncio.gather(http.get(f"{admin}/health/ready"), http.get(f"{admin}/metrics"))
        if ready.status_code not in {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE} or not metrics.is_success:
            return None, _Metrics("")
        body = ready.json()
        return {"state": str(body["status"]), "checks": dict(body["checks"])}, _Metrics(metrics.text)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, LookupError, TypeError):
        return None, _Metrics("")


class _Metrics:
    """Samples of one scrape of `/metrics`."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append(sample)

    def sum(self, name: str, **labels: str | Iterable[str]) -> float | None:
        """Return the sum of the samples with these label values; None if there is no such metric."""
        allowed = {label: {value} if isinstance(value, str) else set(value) for label, value in labels.items()}
        samples = self._samples.get(name)
        if samples is None:
            return None
        return sum(
            each.value for each in samples if all(each.labels[label] in values for label, values in allowed.items())
        )

    def label(self, name: str, label: str) -> str | None:
        """Return the label's value in the first sample that is not 0."""
        return next((each.labels[label] for each in self._samples.get(name, ()) if each.value), None)


def _service_state(ready: Mapping[str, Any] | None, metrics: _Metrics) -> ServiceState:
    if ready is None:
        return ServiceState("no answer")
    started = metrics.sum("process_start_time_seconds")
    uptime = None if started is None else round(time.time() - started, 1)
    return ServiceState(ready["state"], ready["checks"], metrics.label("wallet_build_info", "version"), uptime)


def _figures(metrics: Mapping[str, _Metrics]) -> dict[str, float | str | None]:
    empty = _Metrics("")
    bank, card, analytics, gateway = (metrics.get(name, empty) for name in ("bank", "card", "analytics", "gateway"))
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
    "transfer_calls": "successful transfer calls since the bank started",
    "outbox_backlog": "outbox rows not yet published",
    "outbox_age_seconds": "age of the oldest outbox row (s)",
    "consumer_lag": "events not yet stored",
    "accounts_incomplete": "accounts with an incomplete history",
    "compared_seconds_ago": "last comparison with the ledger (s ago)",
    "top_ups_open": "top-ups in progress",
    "top_ups_to_review": "top-ups that need manual review",
    "acquirer_circuit": "circuit breaker to the acquirer",
    "websockets": "open WebSockets",
    "event_streams": "open server-sent event streams",
}


def _table(status: Status) -> str:
    rows = [("service", "state", "uptime", "version", "dependencies")]
    for name, service in status.services.items():
        checks = ", ".join(f"{check} {state}" for check, state in service.checks.items())
        rows.append((name, service.state, _duration(service.uptime_seconds), service.version or "", checks))
    figures = [(_TITLES[name], _number(value)) for name, value in status.figures.items()]
    return "\n".join([*_aligned(rows), "", *_aligned(figures)])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _number(value: float | str | None) -> str:
    if value is None:
        return "unknown"
    return value if isinstance(value, str) else f"{value:,.0f}"


def _duration(seconds: float | None) -> str:
    """Format a duration with its two largest units: `3 d 4 h`, `5 min 6 s`."""
    if seconds is None:
        return ""
    parts: list[str] = []
    rest = int(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or unit == "s" or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
