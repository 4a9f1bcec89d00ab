import base64
import hashlib
import json
from pathlib import Path

import jwt

from kit.runtime.settings import DEVELOPMENT
from provisioning.keys import key_pair, signing_keys


class TestKeyPair:
    def test_a_token_signed_with_the_private_half_is_verified_by_the_public_one(self, tmp_path: Path) -> None:
        pair = key_pair(tmp_path, "development")
        (public,) = jwt.PyJWKSet.from_json(pair.public.read_text()).keys
        token = jwt.encode({"sub": "alice"}, pair.private.read_text(), "EdDSA", headers={"kid": public.key_id})
        assert jwt.decode(token, public, ["EdDSA"]) == {"sub": "alice"}

    def test_the_key_is_named_by_its_thumbprint(self, tmp_path: Path) -> None:
        (jwk,) = json.loads(key_pair(tmp_path, "analytics").public.read_text())["keys"]
        members = f'{{"crv":"Ed25519","kty":"OKP","x":"{jwk["x"]}"}}'.encode()
        thumbprint = base64.urlsafe_b64encode(hashlib.sha256(members).digest()).rstrip(b"=").decode()
        known = {"kty": "OKP", "crv": "Ed25519", "x": jwk["x"], "kid": thumbprint, "alg": "EdDSA", "use": "sig"}
        assert jwk == known | {DEVELOPMENT: True}

    def test_it_is_made_once(self, tmp_path: Path) -> None:
        first = key_pair(tmp_path, "development").private.read_bytes()
        assert key_pair(tmp_path, "development").private.read_bytes() == first

    def test_only_the_owner_may_read_the_private_half(self, tmp_path: Path) -> None:
        assert key_pair(tmp_path, "development").private.stat().st_mode & 0o777 == 0o600


class TestSigningKeys:
    def test_begin_with_the_pair_and_are_left_alone_after(self, tmp_path: Path) -> None:
        pair = key_pair(tmp_path, "development")
        folder = signing_keys(tmp_path / "identity", pair)
        (file,) = folder.iterdir()
        assert file.read_bytes() == pair.private.read_bytes()
        assert file.stat().st_mode & 0o777 == 0o600
        file.rename(folder / "rotated.pem")
        signing_keys(folder, pair)
        assert [each.name for each in folder.iterdir()] == ["rotated.pem"]
