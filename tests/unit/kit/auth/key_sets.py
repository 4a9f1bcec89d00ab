"""Key sets for tests."""

import json
from typing import Any

from kit.auth.keys import KeySet


def build_key_set(*jwks: dict[str, Any]) -> str:
    """Return the JWKs as a JSON Web Key Set."""
    return json.dumps({"keys": jwks})


def list_kids(key_set: KeySet) -> list[str]:
    """Return the `kid` of each key."""
    assert key_set.jwks is not None
    return [jwk["kid"] for jwk in key_set.jwks["keys"]]
