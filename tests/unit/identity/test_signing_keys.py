"""Signing keys: which key signs, which are published, and which are obsolete."""

import json
import os
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from kit.auth.jwk import public_jwk
from kit.auth.keys import KeySet
from kit.auth.principal import Role, TokenVerifier
from subgraphs.identity.service.adapters.signing_keys import (
    ACTIVATION_SECONDS,
    READ_INTERVAL_SECONDS,
    NoSigningKeyError,
    SigningKey,
    SigningKeys,
    choose_signing_key,
    find_obsolete_keys,
    read_keys,
)
from subgraphs.identity.service.keys import ADMIN_TOKEN_SECONDS, main, rotate_keys, sign_admin_token

PRIVATE = Ed25519PrivateKey.generate()


def write_key(folder: Path, name: str, *, age: float = 0.0, private: Ed25519PrivateKey | None = None) -> Path:
    """Write a key file with an age in seconds."""
    file = folder / f"{name}.pem"
    key = private or Ed25519PrivateKey.generate()
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    os.utime(file, (time.time() - age,) * 2)
    return file


def keys_created_at(*creation_times: float) -> list[SigningKey]:
    return [SigningKey(Path(f"{created_at}.pem"), created_at, PRIVATE) for created_at in sorted(creation_times)]


class TestChooseSigningKey:
    def test_single_key_signs_immediately(self) -> None:
        (only,) = keys_created_at(100)
        assert choose_signing_key([only], 100) is only

    def test_newest_key_signs_after_a_minute(self) -> None:
        old, newer, newest = keys_created_at(0, 1000, 1030)
        assert choose_signing_key([old, newer, newest], 1059) is old
        assert choose_signing_key([old, newer, newest], 1060) is newer
        assert choose_signing_key([old, newer, newest], 1090) is newest

    def test_oldest_key_signs_while_all_keys_are_new(self) -> None:
        first, second = keys_created_at(0, 1)
        assert choose_signing_key([first, second], 2) is first


class TestFindObsoleteKeys:
    @given(st.lists(st.floats(0, 5_000), min_size=1, max_size=6, unique=True), st.floats(0, 1_000))
    def test_obsolete_key_has_signed_no_valid_token(self, creation_times: list[float], keep: float) -> None:
        keys, now = keys_created_at(*creation_times), 5_000.0
        obsolete = find_obsolete_keys(keys, now, keep_seconds=keep)
        assert obsolete == keys[: len(obsolete)]
        assert len(obsolete) < len(keys)
        # A service may have read the folder some seconds ago, before the newest keys were added.
        for moment in (now - keep, (now - keep + now) / 2, now):
            for late in (0.0, READ_INTERVAL_SECONDS):
                known = [key for key in keys if key.created_at + late <= moment]
                if known:
                    assert choose_signing_key(known, moment - late) not in obsolete

    def test_key_is_obsolete_when_its_tokens_have_expired(self) -> None:
        old, new = keys_created_at(0, 1000)
        last = 1000 + ACTIVATION_SECONDS + READ_INTERVAL_SECONDS + 600
        assert find_obsolete_keys([old, new], last - 1, keep_seconds=600) == []
        assert find_obsolete_keys([old, new], last, keep_seconds=600) == [old]


class TestFolder:
    def test_keys_are_read_oldest_first(self, tmp_path: Path) -> None:
        files = [write_key(tmp_path, name, age=age) for name, age in (("b", 20), ("a", 10), ("c", 30))]
        assert [key.file for key in read_keys(tmp_path)] == [files[2], files[0], files[1]]

    def test_empty_folder_error_names_the_command(self, tmp_path: Path) -> None:
        with pytest.raises(NoSigningKeyError, match=r"keys rotate --folder .* --keep 600"):
            SigningKeys.from_folder(tmp_path)

    def test_files_that_are_no_key_are_skipped(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        good = write_key(tmp_path, "good")
        (tmp_path / "half.pem").write_bytes(good.read_bytes()[:60])
        other = ec.generate_private_key(ec.SECP256R1())
        (tmp_path / "other.pem").write_bytes(
            other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )
        (tmp_path / "folder.pem").mkdir()
        (tmp_path / "notes.txt").write_text("not a key")
        assert [key.file for key in read_keys(tmp_path)] == [good]

    def test_key_set_has_all_keys_without_private_members(self, tmp_path: Path) -> None:
        for name in "ab":
            write_key(tmp_path, name)
        published = SigningKeys.from_folder(tmp_path).jwks["keys"]
        assert [each.keys() for each in published] == [{"kty", "crv", "x", "alg", "use", "kid"}] * 2


class TestRotation:
    def test_rotation_of_an_empty_folder_creates_the_only_key(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "keys"
        rotate_keys(folder, 600)
        (key,) = read_keys(folder)
        assert key.file.stat().st_mode & 0o777 == 0o600
        assert f"added {key.file.name} ({key.jwk['kid']})" in capsys.readouterr().out
        assert list(folder.iterdir()) == [key.file]

    def test_rotation_removes_obsolete_keys_only(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        oldest = write_key(tmp_path, "oldest", age=5_000)
        signs = write_key(tmp_path, "signs", age=1_000)
        rotate_keys(tmp_path, 600)
        assert [key.file for key in read_keys(tmp_path)][:-1] == [signs]
        output = capsys.readouterr().out
        assert f"removed {oldest.name}" in output
        assert f"kept {signs.name}" in output
        assert "signs from " in output
        assert SigningKeys.from_folder(tmp_path).signing_key.public_key() == read_keys(tmp_path)[0].private.public_key()

    def test_rotations_invalidate_no_token(self) -> None:
        """Rotate twice. The verifier reads the keys once a minute, and tokens are valid for ten minutes."""
        lifetime, folder, signed = 600.0, [SigningKey(Path("0.pem"), -10_000, PRIVATE)], list[tuple[float, str]]()
        known: set[str] = set()
        for now in range(0, 4_000, 10):
            if now in {100, 2_000}:
                obsolete = find_obsolete_keys(folder, now, keep_seconds=lifetime)
                new = SigningKey(Path(f"{now}.pem"), now, Ed25519PrivateKey.generate())
                folder = [*(key for key in folder if key not in obsolete), new]
            if now % 60 == 0:
                known = {key.jwk["kid"] for key in folder}
            signed.append((now, choose_signing_key(folder, now).jwk["kid"]))
            assert known >= {kid for at, kid in signed if now < at + lifetime}
        assert len({kid for _, kid in signed}) == 3
        assert len(folder) == 2


class TestAdminToken:
    async def test_services_accept_the_token_of_the_active_key(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        active = Ed25519PrivateKey.generate()
        write_key(tmp_path, "active", age=3_600, private=active)
        write_key(tmp_path, "new")
        command = ["keys", "sign", "--folder", str(tmp_path), "--subject", "carol", "--issuer", "issuer"]
        monkeypatch.setattr("sys.argv", command)
        main()
        key_set = KeySet.from_text(json.dumps({"keys": [public_jwk(active.public_key())]}))
        principal = await TokenVerifier("issuer", {"issuer": key_set}, "wallet").verify(capsys.readouterr().out.strip())
        assert (principal.subject, principal.roles, principal.is_service) == ("carol", frozenset({Role.ADMIN}), False)
        assert principal.expires_at - time.time() <= ADMIN_TOKEN_SECONDS

    def test_issuer_and_audience_come_from_the_environment_variables(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_key(tmp_path, "only")
        monkeypatch.setattr("sys.argv", ["keys", "sign", "--folder", str(tmp_path), "--subject", "carol"])
        monkeypatch.delenv("AUTH_ISSUER", raising=False)
        with pytest.raises(SystemExit):
            main()
        assert "--issuer" in capsys.readouterr().err
        monkeypatch.setenv("AUTH_ISSUER", "wallet-development")
        monkeypatch.setenv("AUTH_AUDIENCE", "money")
        main()
        claims = jwt.decode(capsys.readouterr().out.strip(), options={"verify_signature": False})
        assert (claims["iss"], claims["aud"]) == ("wallet-development", "money")

    def test_folder_without_keys_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit, match="there is no signing key in"):
            sign_admin_token(tmp_path, "issuer", "wallet", "carol")
