"""Secrets of the containers in `docker-compose.yml`: passwords, keys and certificates, one folder per container.

`python -m provisioning.compose --folder /secrets` runs as a job. Existing secrets stay; certificates are
renewed before they expire. Safe to repeat, and after a crash.

The folder `own` is a volume of this job only: it holds each secret and the certificate authority. Every other folder is
a volume that this job shares with one container. A file with a secret setting has the name of the setting; keys,
certificates and the files of third-party containers have fixed names.
"""

import argparse
import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from kit.runtime.files import write_private_file
from provisioning.certificates import ensure_certificates
from provisioning.keys import ensure_key_pair, ensure_secret, ensure_signing_keys

_SERVICES: Final = ("bank", "card", "analytics", "identity", "gateway")
_TOKEN_ISSUERS: Final = ("analytics", "card", "gateway")
_THIRD_PARTY: Final = frozenset({"nginx", "postgres", "clickhouse", "redis"})
"""Third-party images run as other users, so their files are readable by all."""


def write_secrets(folder: Path, now: datetime) -> None:
    """Create missing secrets in `own` and write each container's files if they differ. Safe to repeat.

    Raises:
        CertificateError: the certificate authority in `own` cannot be used.
    """
    own = folder / "own"
    pairs = [ensure_key_pair(own, name) for name in _TOKEN_ISSUERS]
    ensure_signing_keys(folder / "identity" / "keys", ensure_key_pair(own, "development"))
    files = {
        **_settings(own),
        **_certificates(own / "tls", now),
        **{f"{name}/{pair.public.name}": pair.public.read_text() for name in _SERVICES for pair in pairs},
        **{f"{name}/service.pem": pair.private.read_text() for name, pair in zip(_TOKEN_ISSUERS, pairs, strict=True)},
    }
    for name, text in files.items():
        _write(folder / name, text)


def _settings(own: Path) -> Mapping[str, str]:
    """Return the secret settings of our processes, and the secrets of PostgreSQL, ClickHouse and Redis.

    Each key is the path of a file, `folder/name`, and the value is the file's text.
    """
    acquirer_key, webhook_secret = (
        f"sandbox_{ensure_secret(own, 'acquirer')}",
        f"whsec_{ensure_secret(own, 'webhooks')}",
    )
    bank, card, identity = (_database_url(own, name) for name in ("bank", "card", "identity"))
    clickhouse, redis = _password(own, "clickhouse"), _password(own, "redis")
    return {
        "bank/bank_database_url": bank,
        "card/card_database_url": card,
        "card/card_fingerprint_secret": ensure_secret(own, "fingerprint"),
        "card/acquirer_api_key": acquirer_key,
        "card/acquirer_webhook_secret": webhook_secret,
        "acquirer/sandbox_api_key": acquirer_key,
        "acquirer/sandbox_webhook_secret": webhook_secret,
        "analytics/clickhouse_dsn": f"http://wallet:{clickhouse}@clickhouse:8123/wallet",
        "identity/identity_database_url": identity,
        "identity/identity_refresh_secret": ensure_secret(own, "refresh"),
        "gateway/gateway_rate_store": f"redis://:{redis}@redis:6379/0",
        "load/bank_database_url": bank,
        "seed/bank_database_url": bank,
        "seed/identity_database_url": identity,
        "seed/seed_password": ensure_secret(own, "password"),
        **{f"postgres/{name}": _password(own, name) for name in ("postgres", "bank", "card", "identity")},
        "clickhouse/password": clickhouse,
        "redis/redis.conf": f"requirepass {redis}\n",
    }


def _certificates(tls: Path, now: datetime) -> Mapping[str, str]:
    """Return the certificates and keys of the services and of nginx, and the authority's certificate for each verifier.

    Each key is the path of a file, `folder/name`, and the value is the file's text.
    """
    authority, *certificates = ensure_certificates(tls, (*_SERVICES, "nginx"), now)
    authority_pem = authority.certificate.read_text()
    return {
        **{f"{each.name}/tls.key": each.key.read_text() for each in certificates},
        **{f"{each.name}/tls.pem": each.certificate.read_text() for each in certificates},
        **{f"{name}/authority.pem": authority_pem for name in (*_SERVICES, "nginx", "load")},
    }


def _database_url(own: Path, name: str) -> str:
    return f"postgresql://{name}:{_password(own, name)}@postgres:5432/{name}"


def _password(own: Path, name: str) -> str:
    """Return a password in hexadecimal, which needs no escaping in a URL, a configuration file or XML."""
    return base64.b64decode(ensure_secret(own, f"{name}-password")).hex()


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        write_private_file(path, text)
    if path.parent.name in _THIRD_PARTY:  # also an unchanged file: an interrupted run may have left mode 0600
        path.chmod(0o444)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m provisioning.compose", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="parent of the containers' folders")
    write_secrets(parser.parse_args().folder, datetime.now(UTC))


if __name__ == "__main__":
    main()
