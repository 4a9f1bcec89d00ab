"""Development keys and secrets: created on first use and kept in the data folder."""

import base64
import json
import secrets
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kit.auth.jwk import public_jwk
from kit.runtime.files import write_private_file
from kit.runtime.settings import DEVELOPMENT_KEY_MARKER


class KeyPair(NamedTuple):
    """Files of one Ed25519 key."""

    private: Path  # PKCS #8 PEM, readable by its owner only
    public: Path  # JSON Web Key Set with the public key


def ensure_key_pair(folder: Path, name: str) -> KeyPair:
    """Return the Ed25519 key pair `name` in `folder`; create it on first use."""
    pair = KeyPair(folder / f"{name}.pem", folder / f"{name}.jwks.json")
    if not pair.private.exists() or not pair.public.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        jwk = {**public_jwk(key.public_key()), DEVELOPMENT_KEY_MARKER: True}
        write_private_file(pair.public, json.dumps({"keys": [jwk]}, indent=2))
        write_private_file(pair.private, f"{DEVELOPMENT_KEY_MARKER}\n{pem}")  # RFC 7468 allows text before the key
    return pair


def ensure_signing_keys(folder: Path, first: KeyPair) -> Path:
    """Return the folder of token-signing keys; on first use, copy the private key of `first` into it."""
    if not any(folder.glob("*.pem")):
        write_private_file(folder / first.private.name, first.private.read_text())
    return folder


def ensure_secret(folder: Path, name: str) -> str:
    """Return the secret `name` in `folder`, 32 random bytes in base64; create it on first use."""
    file = folder / f"{name}.secret"
    if not file.exists():
        write_private_file(file, base64.b64encode(secrets.token_bytes(32)).decode())
    return file.read_text()
