"""What the containers of `docker-compose.yml` are handed: passwords, keys and certificates, in a folder for each.

`python -m provisioning.compose --folder /secrets` runs as a job. Existing secrets stay; certificates are
renewed before they expire. Safe to repeat, and after a crash.

Whatever is in `own` is handed to nobody: each secret by itself, and the authority that signs certificates. A container
has its own folder, as a volume, and no other; in it the files are as its settings name them.
"""

import argparse
import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from kit.runtime.files import write_private
from provisioning.certificates import ensure_certificates
from provisioning.keys import key_pair, secret, signing_keys

_SERVICES: Final = ("bank", "card", "analytics", "identity", "gateway")
_CALLERS: Final = ("analytics", "card")
_OF_OTHERS: Final = frozenset({"nginx", "postgres", "clickhouse", "redis"})
"""Images that are not ours, and have users of their own: they read what they are handed as files that all may read."""


def hand_out(folder: Path, now: datetime) -> None:
    """Makes what is missing in the folder's `own`, and writes to each container's folder what is not there as it is.

    Raises:
        CertificateError: the authority in `own` is not usable.
    """
    own = folder / "own"
    pairs = [key_pair(own, name) for name in _CALLERS]
    signing_keys(folder / "identity" / "keys", key_pair(own, "development"))
    files = {
        **_settings(own),
        **_certificates(own / "tls", now),
        **{f"{name}/{pair.public.name}": pair.public.read_text() for name in _SERVICES for pair in pairs},
        **{f"{name}/service.pem": pair.private.read_text() for name, pair in zip(_CALLERS, pairs, strict=True)},
    }
    for name, text in files.items():
        _write(folder / name, text)


def _settings(own: Path) -> Mapping[str, str]:
    """The settings that are secrets, and the same secrets as the servers take them."""
    acquirer_key, webhook_secret = f"sandbox_{secret(own, 'acquirer')}", f"whsec_{secret(own, 'webhooks')}"
    bank, card, identity = (_database(own, name) for name in ("bank", "card", "identity"))
    clickhouse, redis = _password(own, "clickhouse"), _password(own, "redis")
    return {
        "bank/bank_database_url": bank,
        "card/card_database_url": card,
        "card/card_fingerprint_secret": secret(own, "fingerprint"),
        "card/acquirer_api_key": acquirer_key,
        "card/acquirer_webhook_secret": webhook_secret,
        "acquirer/sandbox_api_key": acquirer_key,
        "acquirer/sandbox_webhook_secret": webhook_secret,
        "analytics/clickhouse_dsn": f"http://wallet:{clickhouse}@clickhouse:8123/wallet",
        "identity/identity_database_url": identity,
        "identity/identity_refresh_secret": secret(own, "refresh"),
        "gateway/gateway_rate_store": f"redis://:{redis}@redis:6379/0",
        "load/bank_database_url": bank,
        "seed/bank_database_url": bank,
        "seed/identity_database_url": identity,
        "seed/seed_password": secret(own, "password"),
        **{f"postgres/{name}": _password(own, name) for name in ("postgres", "bank", "card", "identity")},
        "clickhouse/password": clickhouse,
        "redis/redis.conf": f"requirepass {redis}\n",
    }


def _certificates(tls: Path, now: datetime) -> Mapping[str, str]:
    """Each service's pair, nginx's, and the authority for all who have to believe them."""
    authority, *pairs = ensure_certificates(tls, (*_SERVICES, "nginx"), now)
    believed = authority.certificate.read_text()
    return {
        **{f"{pair.name}/{name}": text for pair in pairs for name, text in _pair(pair.certificate, pair.key)},
        **{f"{name}/authority.pem": believed for name in (*_SERVICES, "nginx", "load")},
    }


def _pair(certificate: Path, key: Path) -> Iterator[tuple[str, str]]:
    yield "tls.key", key.read_text()
    yield "tls.pem", certificate.read_text()


def _database(own: Path, name: str) -> str:
    return f"postgresql://{name}:{_password(own, name)}@postgres:5432/{name}"


def _password(own: Path, name: str) -> str:
    """As it can stand in a URL, in a configuration file and in XML."""
    return base64.b64decode(secret(own, f"{name}-password")).hex()


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        write_private(path, text)
    if path.parent.name in _OF_OTHERS:  # always: the last run may have ended before it came to this
        path.chmod(0o444)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m provisioning.compose", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="with a folder for each container")
    hand_out(parser.parse_args().folder, datetime.now(UTC))


if __name__ == "__main__":
    main()
