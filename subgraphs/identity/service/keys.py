"""`python -m subgraphs.identity.service.keys rotate --folder FOLDER --keep SECONDS`: rotate the signing keys.

The command adds a key and removes obsolete keys. Running services reload the folder every five seconds.
"""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kit.auth.jwk import public_jwk
from kit.runtime.files import write_private_file
from subgraphs.identity.service.adapters.signing_keys import (
    ACTIVATION_SECONDS,
    READ_INTERVAL_SECONDS,
    find_obsolete_keys,
    read_keys,
)


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
    # The name sorts after the names of older keys: a volume may give all files the same time.
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
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "rotate", help="add a key and remove obsolete keys"
    )
    command.add_argument("--folder", type=Path, required=True, metavar="FOLDER", help="the folder in IDENTITY_KEYS")
    command.add_argument("--keep", type=float, required=True, metavar="SECONDS", help="lifetime of access tokens")
    arguments = parser.parse_args()
    rotate_keys(arguments.folder, arguments.keep)


if __name__ == "__main__":
    main()
