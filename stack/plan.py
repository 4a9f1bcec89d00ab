"""Plan of all processes: command, settings, readiness probe and dependencies of each."""

import json
from datetime import UTC, datetime
from pathlib import Path

from provisioning.certificates import ensure_certificates
from provisioning.keys import ensure_key_pair, ensure_secret, ensure_signing_keys
from stack import probes
from stack.engines.apache_kafka import ApacheKafka
from stack.engines.children import ClickHouse, Kafka
from stack.engines.postgres import Postgres
from stack.ports import HOST, Ports
from stack.process import Process, module

_ACCESS_SECONDS = 12 * 3600  # a token from `make token` is valid for a working day

ISSUER = "wallet-development"
AUDIENCE = "wallet"
PASSWORD = "password"  # noqa: S105  name of the secret that holds the seeded users' password


def build_plan(
    ports: Ports, data: Path, postgres: Postgres, *, tls: bool = False, kafka_jars: Path | None = None
) -> tuple[Process, ...]:
    """Return the plan of the whole system. Create missing keys, and with `tls` the certificates for mutual TLS.

    Args:
        ports: ports of all processes.
        data: absolute path of the system's data folder.
        postgres: the database server, not started yet.
        tls: use mutual TLS between the services.
        kafka_jars: jars of Apache Kafka; None runs the embedded broker, which forgets its topics when it stops.
    """
    keys = data / "keys"
    people, analytics, card, gateway = (
        ensure_key_pair(keys, name) for name in ("development", "analytics", "card", "gateway")
    )
    kafka: Kafka | ApacheKafka = Kafka(ports.kafka)
    if kafka_jars is not None:
        kafka = ApacheKafka(kafka_jars, data / "kafka", ports.kafka, ports.kafka_controller)
    clickhouse = ClickHouse(data / "clickhouse", ports.clickhouse)
    bank_database = {"BANK_DATABASE_URL": postgres.dsn("bank")}
    card_database = {"CARD_DATABASE_URL": postgres.dsn("card")}
    identity_database = {"IDENTITY_DATABASE_URL": postgres.dsn("identity")}
    history_database = {"CLICKHOUSE_DSN": clickhouse.dsn("wallet")}
    brokers = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    bank_target = {"BANK_GRPC_TARGET": f"{HOST}:{ports.bank_grpc}"}
    card_target = {"CARD_GRPC_TARGET": f"{HOST}:{ports.card_grpc}"}
    analytics_target = {"ANALYTICS_GRPC_TARGET": f"{HOST}:{ports.analytics_grpc}"}
    identity_target = {"IDENTITY_GRPC_TARGET": f"{HOST}:{ports.identity_grpc}"}
    log_format = {"LOG_FORMAT": "console"}
    service = {
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
        "AUTH_JWKS": f"http://{HOST}:{ports.identity_admin}/.well-known/jwks.json",
        "AUTH_SERVICES": json.dumps(
            {"analytics": str(analytics.public), "card": str(card.public), "gateway": str(gateway.public)}
        ),
        **log_format,
    }
    tls_of = _certificates(data / "tls", "bank", "card", "analytics", "identity", "gateway") if tls else {}
    acquirer_key, webhook_secret = (
        f"sandbox_{ensure_secret(keys, 'acquirer')}",
        f"whsec_{ensure_secret(keys, 'webhooks')}",
    )
    acquirer = f"http://{HOST}:{ports.acquirer}"
    bank_admin = f"http://{HOST}:{ports.bank_admin}"
    card_admin = f"http://{HOST}:{ports.card_admin}"
    analytics_admin = f"http://{HOST}:{ports.analytics_admin}"
    identity_admin = f"http://{HOST}:{ports.identity_admin}"
    gateway_admin = f"http://{HOST}:{ports.gateway_admin}"
    front_door = f"http://{HOST}:{ports.gateway}"
    return (
        postgres.process,
        kafka.process,
        clickhouse.process,
        Process(
            name="bank-migrations",
            command=module("subgraphs.bank.service.migrations", **bank_database, **log_format),
            depends_on=("postgres",),
        ),
        Process(
            name="card-migrations",
            command=module("subgraphs.card.service.migrations", **card_database, **log_format),
            depends_on=("postgres",),
        ),
        Process(
            name="analytics-migrations",
            command=module("subgraphs.analytics.service.migrations", **history_database, **log_format),
            depends_on=("clickhouse",),
        ),
        Process(
            name="identity-migrations",
            command=module("subgraphs.identity.service.migrations", **identity_database, **log_format),
            depends_on=("postgres",),
        ),
        Process(
            name="seed",
            command=module(
                "provisioning.seed", **bank_database, **identity_database, SEED_PASSWORD=ensure_secret(keys, PASSWORD)
            ),
            depends_on=("bank-migrations", "identity-migrations"),
        ),
        Process(
            name="bank",
            command=module(
                "subgraphs.bank.service",
                **service,
                **tls_of.get("bank", {}),
                **bank_database,
                **brokers,
                BANK_GRPC_LISTEN=f"{HOST}:{ports.bank_grpc}",
                BANK_ADMIN_LISTEN=f"{HOST}:{ports.bank_admin}",
            ),
            ready=probes.http(f"{bank_admin}/health/ready"),
            depends_on=("seed", "kafka"),
            ports={"gRPC": ports.bank_grpc, "admin": ports.bank_admin},
            urls={"admin": bank_admin},
        ),
        Process(
            name="acquirer",
            command=module(
                "sandbox",
                SANDBOX_IS_NOT_PRODUCTION="true",
                SANDBOX_LISTEN=f"{HOST}:{ports.acquirer}",
                SANDBOX_API_KEY=acquirer_key,
                SANDBOX_BOOKS=str(data / "acquirer.sqlite"),
                SANDBOX_WEBHOOK_URL=f"http://{HOST}:{ports.card_webhooks}/webhooks/acquirer",
                SANDBOX_WEBHOOK_SECRET=webhook_secret,
                **log_format,
            ),
            ready=probes.http(f"{acquirer}/health/ready"),
            ports={"HTTP": ports.acquirer},
            urls={"test cards": acquirer},
        ),
        Process(
            name="card",
            command=module(
                "subgraphs.card.service",
                **service,
                **tls_of.get("card", {}),
                **card_database,
                **bank_target,
                CARD_GRPC_LISTEN=f"{HOST}:{ports.card_grpc}",
                CARD_ADMIN_LISTEN=f"{HOST}:{ports.card_admin}",
                CARD_WEBHOOK_LISTEN=f"{HOST}:{ports.card_webhooks}",
                CARD_FINGERPRINT_SECRET=ensure_secret(keys, "fingerprint"),
                ACQUIRER_URL=acquirer,
                ACQUIRER_API_KEY=acquirer_key,
                ACQUIRER_WEBHOOK_SECRET=webhook_secret,
                SERVICE_KEY_FILE=str(card.private),
            ),
            ready=probes.http(f"{card_admin}/health/ready"),
            depends_on=("card-migrations",),
            ports={"gRPC": ports.card_grpc, "admin": ports.card_admin, "webhooks": ports.card_webhooks},
            urls={"admin": card_admin},
        ),
        Process(
            name="analytics",
            command=module(
                "subgraphs.analytics.service",
                **service,
                **tls_of.get("analytics", {}),
                **history_database,
                **bank_target,
                **brokers,
                ANALYTICS_GRPC_LISTEN=f"{HOST}:{ports.analytics_grpc}",
                ANALYTICS_ADMIN_LISTEN=f"{HOST}:{ports.analytics_admin}",
                SERVICE_KEY_FILE=str(analytics.private),
            ),
            ready=probes.http(f"{analytics_admin}/health/ready"),
            depends_on=("analytics-migrations", "kafka"),
            restart_with=("kafka",) if kafka_jars is None else (),  # a group does not outlive the embedded broker
            ports={"gRPC": ports.analytics_grpc, "admin": ports.analytics_admin},
            urls={"admin": analytics_admin},
        ),
        Process(
            name="identity",
            command=module(
                "subgraphs.identity.service",
                **service,
                **tls_of.get("identity", {}),
                **identity_database,
                IDENTITY_GRPC_LISTEN=f"{HOST}:{ports.identity_grpc}",
                IDENTITY_ADMIN_LISTEN=f"{HOST}:{ports.identity_admin}",
                IDENTITY_KEYS=str(ensure_signing_keys(keys / "identity", people)),
                IDENTITY_ACCESS_SECONDS=str(_ACCESS_SECONDS),
                IDENTITY_REFRESH_SECRET=ensure_secret(keys, "refresh"),
            ),
            ready=probes.http(f"{identity_admin}/health/ready"),
            depends_on=("identity-migrations",),
            ports={"gRPC": ports.identity_grpc, "admin": ports.identity_admin},
            urls={"admin": identity_admin},
        ),
        Process(
            name="gateway",
            command=module(
                "gateway",
                **service,
                **tls_of.get("gateway", {}),
                **bank_target,
                **card_target,
                **analytics_target,
                **identity_target,
                GATEWAY_LISTEN=f"{HOST}:{ports.gateway}",
                GATEWAY_ADMIN_LISTEN=f"{HOST}:{ports.gateway_admin}",
                SERVICE_KEY_FILE=str(gateway.private),
            ),
            ready=probes.http(f"{front_door}/health/ready"),
            ports={"HTTP": ports.gateway, "admin": ports.gateway_admin},
            urls={"admin": gateway_admin, "GraphiQL": f"{front_door}/graphql", "REST": f"{front_door}/docs"},
        ),
    )


def _certificates(folder: Path, *names: str) -> dict[str, dict[str, str]]:
    """Create or renew the certificates, and return the TLS settings of each service."""
    authority, *pairs = ensure_certificates(folder, names, datetime.now(UTC))
    return {
        pair.name: {
            "TLS_CERTIFICATE": str(pair.certificate),
            "TLS_KEY": str(pair.key),
            "TLS_AUTHORITY": str(authority.certificate),
        }
        for pair in pairs
    }
