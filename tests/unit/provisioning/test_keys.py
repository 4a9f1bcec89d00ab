import base64
import hashlib
import json
from pathlib import Path

import jwt

from kit.runtime.settings import DEVELOPMENT_KEY_MARKER
from provisioning.keys import ensure_key_pair, ensure_signing_keys


class TestKeyPair:
    def test_public_key_verifies_tokens_of_the_private_key(self, tmp_path: Path) -> None:
        pair = ensure_key_pair(tmp_path, "development")
        (public,) = jwt.PyJWKSet.from_json(pair.public.read_text()).keys
        token = jwt.encode({"sub": "alice"}, pair.private.read_text(), "EdDSA", headers={"kid": public.key_id})
        assert jwt.decode(token, public, ["EdDSA"]) == {"sub": "alice"}

    def test_key_id_is_the_thumbprint(self, tmp_path: Path) -> None:
        (jwk,) = json.loads(ensure_key_pair(tmp_path, "analytics").public.read_text())["keys"]
        members = f'{{"crv":"Ed25519","kty":"OKP","x":"{jwk["x"]}"}}'.encode()
        thumbprint = base64.urlsafe_b64encode(hashlib.sha256(members).digest()).rstrip(b"=").decode()
        known = {"kty": "OKP", "crv": "Ed25519", "x": jwk["x"], "kid": thumbprint, "alg": "EdDSA", "use": "sig"}
        assert jwk == known | {DEVELOPMENT_KEY_MARKER: True}

    def test_key_pair_is_created_once(self, tmp_path: Path) -> None:
        first = ensure_key_pair(tmp_path, "development").private.read_bytes()
        assert ensure_key_pair(tmp_path, "development").private.read_bytes() == first

    def test_private_key_is_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        assert ensure_key_pair(tmp_path, "development").private.stat().st_mode & 0o777 == 0o600


class TestSigningKeys:
    def test_signing_keys_start_with_the_pair_and_are_not_replaced(self, tmp_path: Path) -> None:
        pair = ensure_key_pair(tmp_path, "development")
        folder = ensure_signing_keys(tmp_path / "identity", pair)
        (file,) = folder.iterdir()
        assert file.read_bytes() == pair.private.read_bytes()
        assert file.stat().st_mode & 0o777 == 0o600
        file.rename(folder / "rotated.pem")
        ensure_signing_keys(folder, pair)
        assert [each.name for each in folder.iterdir()] == ["rotated.pem"]
