"""The keys that access tokens are signed with: a folder of PEM files, which processes read and a command writes.

`python -m subgraphs.identity.service.adapters.keys rotate --folder F --keep SECONDS` adds a key, and
removes those that are of no use any more. The processes notice by themselves.

A key begins to sign when it has been in the folder for a while, and by then every verifier has it; it stops when a
newer one begins. From then on it is published for those tokens alone that it has signed.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from kit.auth.jwk import public_jwk
from kit.runtime.files import write_private_file
from subgraphs.identity.service import metrics

log = structlog.get_logger(__name__)

READ_SECONDS: Final = 5.0
"""How often a process looks at the folder."""

PUBLISHED_SECONDS: Final = 30
"""For how long what it publishes may be kept by others."""

SETTLED_SECONDS: Final = 60.0
"""How long a key has to have been there before it signs: whoever read the keys before has read them again by then."""


class NoKeyError(Exception):
    """There is nothing to sign with. The message says what to do."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key in the folder. `since` is when its file was written, by the clock of `time.time`."""

    file: Path
    since: float
    private: Ed25519PrivateKey

    @property
    def jwk(self) -> dict[str, str]:
        """Its public half."""
        return public_jwk(self.private.public_key())


class Keys:
    """The keys of a folder, as they were when it was last read."""

    def __init__(self, keys: Sequence[SigningKey], clock: Callable[[], float] = time.time) -> None:
        """Args:
        keys: oldest first; at least one.
        clock: seconds since 1970.
        """
        self._keys = keys
        self._clock = clock

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The keys that are there now.

        Raises:
            NoKeyError: there is none.
        """
        if not (keys := read(folder)):
            raise NoKeyError(
                f"there is no key in {folder}: make one with "
                f"python -m subgraphs.identity.service.adapters.keys rotate --folder {folder} --keep 600"
            )
        metrics.KEYS.set(len(keys))
        return cls(keys)

    @property
    def signing(self) -> Ed25519PrivateKey:
        """The newest key that is settled; the oldest while none is."""
        return signing(self._keys, self._clock()).private

    @property
    def document(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """The public halves of all of them, as a key set (RFC 7517)."""
        return {"keys": [key.jwk for key in self._keys]}

    async def follow(self, folder: Path) -> None:
        """Reads the folder again and again, for ever. While it has no keys, those of before stay."""
        while True:
            await asyncio.sleep(READ_SECONDS)
            if keys := await asyncio.to_thread(read, folder):
                self._keys = keys
                metrics.KEYS.set(len(keys))
            else:
                log.error("there are no keys any more; those of before are used", folder=str(folder))


def read(folder: Path) -> list[SigningKey]:
    """The keys in a folder, oldest first. What is no Ed25519 key in PEM (PKCS 8) is told in the log."""
    keys = []
    for file in folder.glob("*.pem"):
        try:
            since, private = file.stat().st_mtime, load_pem_private_key(file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            log.warning("a key cannot be read", file=str(file), error=type(error).__name__)
            continue
        if isinstance(private, Ed25519PrivateKey):
            keys.append(SigningKey(file, since, private))
        else:
            log.warning("a key is no Ed25519 key", file=str(file))
    return sorted(keys, key=lambda key: (key.since, key.file.name))


def signing(keys: Sequence[SigningKey], now: float) -> SigningKey:
    """The one of the keys, oldest first, that signs now."""
    settled = [key for key in keys if key.since + SETTLED_SECONDS <= now]
    return settled[-1] if settled else keys[0]


def superseded(keys: Sequence[SigningKey], now: float, *, keep_seconds: float) -> list[SigningKey]:
    """Those of the keys, oldest first, that no token is signed by which may still be believed.

    Args:
        keys: all of them.
        now: the time.
        keep_seconds: how long an access token is believed.
    """
    last = SETTLED_SECONDS + READ_SECONDS + keep_seconds  # after this long a successor has done with its predecessors
    done = [place for place, key in enumerate(keys) if key.since + last <= now]
    return list(keys[: done[-1]]) if done else []


def rotate(folder: Path, keep_seconds: float) -> None:
    """Adds a key and removes those that are of no use any more; says what happens next."""
    now = time.time()
    before = read(folder)
    over = superseded(before, now, keep_seconds=keep_seconds)
    private = Ed25519PrivateKey.generate()
    # By its name, too, it comes after those before it: some ways to hand files on give all of them one time.
    file = folder / f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S%f}.pem"
    write_private_file(file, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    for key in over:
        key.file.unlink(missing_ok=True)
        _say(f"removed {key.file.name} ({key.jwk['kid']}): no token that it has signed lives any more")
    begins = f"signs from {_clock(now + SETTLED_SECONDS)} on" if before else "signs now, as the only one"
    _say(f"added {file.name} ({public_jwk(private.public_key())['kid']}): it is published at once, and {begins}")
    for key in before[len(over) :]:
        _say(
            f"kept {key.file.name} ({key.jwk['kid']}): it is published for what it has signed; a rotation after "
            f"{_clock(now + SETTLED_SECONDS + READ_SECONDS + keep_seconds)} removes it"
        )


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%H:%M:%SZ")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m subgraphs.identity.service.adapters.keys", description="The keys of access tokens."
    )
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "rotate", help="add a key, remove old ones"
    )
    command.add_argument("--folder", type=Path, required=True, metavar="F", help="that IDENTITY_KEYS names")
    command.add_argument("--keep", type=float, required=True, metavar="SECONDS", help="how long access tokens live")
    arguments = parser.parse_args()
    rotate(arguments.folder, arguments.keep)


if __name__ == "__main__":
    main()
