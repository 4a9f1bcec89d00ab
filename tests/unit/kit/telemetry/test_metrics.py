"""Metrics that all processes have."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

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


def test_expiry_metric_follows_the_certificate_in_use(tmp_path: Path) -> None:
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
