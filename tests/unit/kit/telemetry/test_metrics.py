"""Metrics that all processes have."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest

from kit.rpc.tls import TLS
from kit.telemetry import metrics
from provisioning.certificates import LIFETIME, ensure_certificates


@pytest.fixture(autouse=True)
def reset_metrics() -> Iterator[None]:
    yield
    metrics.register_pool(lambda: 0, 0)
    metrics.CERTIFICATE_EXPIRES.set(0)


def metric_value(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"wallet_{name}")


def test_connections_are_counted_at_each_scrape() -> None:
    connections: list[object] = []
    metrics.register_pool(lambda: len(connections), 20)
    assert (metric_value("database_connections_in_use"), metric_value("database_connections_limit")) == (0, 20)
    connections.append(object())
    assert metric_value("database_connections_in_use") == 1


def test_expiry_metric_is_that_of_the_certificate_in_use(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ensure_certificates(tmp_path, ["bank"], now - timedelta(days=50))
    files = TLS(tmp_path / "bank.pem", tmp_path / "bank.key", tmp_path / "authority.pem")
    assert metric_value("tls_certificate_expiry_timestamp_seconds") == (now - timedelta(days=50) + LIFETIME).timestamp()
    (tmp_path / "bank.key").unlink()
    ensure_certificates(tmp_path, ["bank"], now)
    files.current_bundle()
    assert metric_value("tls_certificate_expiry_timestamp_seconds") == (now + LIFETIME).timestamp()


def test_build_info_has_the_version() -> None:
    ((sample,),) = (family.samples for family in metrics.BUILD.collect())
    assert sample.labels["version"].count(".") == 2


def test_renamed_counter_is_exposed_under_both_names() -> None:
    registry = CollectorRegistry()
    logins = Counter("wallet_logins", "Logins.", ["outcome"], registry=registry)
    assert metrics.with_old_name(logins, "wallet_sign_ins", registry) is logins
    logins.labels("wrong").inc(2)
    lines = generate_latest(registry).decode().splitlines()
    assert 'wallet_logins_total{outcome="wrong"} 2.0' in lines
    assert 'wallet_sign_ins_total{outcome="wrong"} 2.0' in lines
    assert "# HELP wallet_sign_ins_total Deprecated: use wallet_logins_total." in lines
    assert "# TYPE wallet_sign_ins_total counter" in lines


def test_renamed_gauge_is_exposed_under_both_names() -> None:
    registry = CollectorRegistry()
    leader = metrics.with_old_name(
        Gauge("wallet_is_leader", "1 for the leader.", registry=registry), "wallet_leads", registry
    )
    leader.set(1)
    lines = generate_latest(registry).decode().splitlines()
    assert {"wallet_is_leader 1.0", "wallet_leads 1.0"} <= set(lines)
    assert "# HELP wallet_leads Deprecated: use wallet_is_leader." in lines
    assert "# TYPE wallet_leads gauge" in lines
