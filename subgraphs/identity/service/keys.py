"""`python -m subgraphs.identity.service.keys`: commands for a machine that has the signing keys.

`rotate --folder FOLDER --keep SECONDS` adds a key and removes obsolete keys. Running services reload the folder every
five seconds.

`sign --folder FOLDER --issuer ISSUER --subject NAME` prints an administrator's access token. It needs no running
process, so it works while the gateways or identity are stopped.
"""

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kit.auth.jwk import public_jwk
from kit.auth.principal import Role
from kit.auth.tokens import TokenSigner
from kit.runtime.files import write_private_file
from subgraphs.identity.service.adapters.signing_keys import (
    ACTIVATION_SECONDS,
    READ_INTERVAL_SECONDS,
    choose_signing_key,
    find_obsolete_keys,
    read_keys,
)

ADMIN_TOKEN_SECONDS: Final = 600.0
"""Lifetime of an administrator's token that `sign` prints."""


def sign_admin_token(folder: Path, issuer: str, audience: str, subject: str) -> str:
    """Return an administrator's access token, valid for `ADMIN_TOKEN_SECONDS`.

    This adds no risk: a program that can read the keys can sign such a token without this function.

    Args:
        folder: folder of the keys.
        issuer: `AUTH_ISSUER` of the services.
        audience: `AUTH_AUDIENCE` of the services.
        subject: name of the administrator; the records of audited commands contain it.

    Raises:
        SystemExit: the folder has no key.
    """
    keys = read_keys(folder)
    if not keys:
        raise SystemExit(f"there is no signing key in {folder}: name the folder in IDENTITY_KEYS of identity")
    private = choose_signing_key(keys, time.time()).private
    return TokenSigner(issuer, private, audience).sign(subject, ADMIN_TOKEN_SECONDS, [Role.ADMIN])


def rotate_keys(folder: Path, keep_seconds: float) -> None:
    """Add a key, remove obsolete keys, and print when each key signs or is removed.

    Args:
        folder: folder of the keys.
        keep_seconds: lifetime of an access token.
    """
    now = time.time()
    existing = read_keys(folder)
    obsolete = find_obsolete_keys(existing, now, keep_seconds=keep_seconds)
    private = Ed25519PrivateKey.generate()
    # The name sorts after the names of older keys. If a volume gives all files the same time, the name decides.
    file = folder / f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S%f}.pem"
    write_private_file(file, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    for key in obsolete:
        key.file.unlink(missing_ok=True)
        _print(f"removed {key.file.name} ({key.jwk['kid']}): all tokens that it signed have expired")
    start = f"signs from {_format_time(now + ACTIVATION_SECONDS)}" if existing else "signs now, as the only key"
    _print(f"added {file.name} ({public_jwk(private.public_key())['kid']}): is published now, {start}")
    removable_at = _format_time(now + ACTIVATION_SECONDS + READ_INTERVAL_SECONDS + keep_seconds)
    for key in existing[len(obsolete) :]:
        _print(
            f"kept {key.file.name} ({key.jwk['kid']}): stays published for the tokens that it signed; a rotation after "
            f"{removable_at} removes it"
        )


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%SZ")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m subgraphs.identity.service.keys", description="Manage the keys that sign access tokens."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    rotate = commands.add_parser("rotate", help="add a key and remove obsolete keys")
    rotate.add_argument("--keep", type=float, required=True, metavar="SECONDS", help="lifetime of access tokens")
    sign = commands.add_parser("sign", help="print an administrator's access token, valid for ten minutes")
    issuer = os.environ.get("AUTH_ISSUER")
    sign.add_argument(
        "--issuer",
        default=issuer,
        required=issuer is None,
        help="value of AUTH_ISSUER in the services; default: the environment variable AUTH_ISSUER",
    )
    sign.add_argument(
        "--audience", default=os.environ.get("AUTH_AUDIENCE", "wallet"), help="value of AUTH_AUDIENCE in the services"
    )
    sign.add_argument(
        "--subject", required=True, metavar="NAME", help="administrator's name, which audit records contain"
    )
    for command in (rotate, sign):
        command.add_argument(
            "--folder", type=Path, required=True, metavar="FOLDER", help="folder of the keys: IDENTITY_KEYS"
        )
    arguments = parser.parse_args()
    if arguments.command == "rotate":
        rotate_keys(arguments.folder, arguments.keep)
    else:
        _print(sign_admin_token(arguments.folder, arguments.issuer, arguments.audience, arguments.subject))


if __name__ == "__main__":
    main()
