"""The development keys and secrets: who signs what on this machine, made once and kept in the data folder."""

import base64
import json
import secrets
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kit.auth.tokens import public_jwk
from kit.runtime.files import write_private
from kit.runtime.settings import DEVELOPMENT


class KeyPair(NamedTuple):
    """The two files of one key."""

    private: Path  # PKCS #8 PEM, readable by its owner only
    public: Path  # a JSON Web Key Set with the one public key


def key_pair(folder: Path, name: str) -> KeyPair:
    """The Ed25519 pair `name` in `folder`, made on first use and the same ever after."""
    pair = KeyPair(folder / f"{name}.pem", folder / f"{name}.jwks.json")
    if not pair.private.exists() or not pair.public.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        jwk = {**public_jwk(key.public_key()), DEVELOPMENT: True}
        write_private(pair.public, json.dumps({"keys": [jwk]}, indent=2))
        write_private(pair.private, f"{DEVELOPMENT}\n{pem}")  # RFC 7468 lets a text stand before the key
    return pair


def signing_keys(folder: Path, first: KeyPair) -> Path:
    """The folder of keys that tokens are signed with; on first use it has the one of the pair."""
    if not any(folder.glob("*.pem")):
        write_private(folder / first.private.name, first.private.read_text())
    return folder


def secret(folder: Path, name: str) -> str:
    """32 random bytes in base64: the secret `name` in `folder`, made on first use and the same ever after."""
    file = folder / f"{name}.secret"
    if not file.exists():
        write_private(file, base64.b64encode(secrets.token_bytes(32)).decode())
    return file.read_text()
