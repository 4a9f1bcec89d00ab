from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from kit.rpc.tls import check_key_pair
from provisioning.certificates import LIFETIME, CertificateError, ensure_certificates

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def create_missing(folder: Path, *names: str, now: datetime = NOW) -> list[str]:
    return [pair.name for pair in ensure_certificates(folder, names, now) if pair.is_new]


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


class TestServiceCertificates:
    def test_certificate_serves_client_and_server_for_its_name_and_localhost(self, tmp_path: Path) -> None:
        ensure_certificates(tmp_path, ["bank"], NOW)
        bank = certificate(tmp_path, "bank")
        policy = PolicyBuilder().store(Store([certificate(tmp_path, "authority")])).time(NOW)
        for host in (x509.DNSName("bank"), x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))):
            policy.build_server_verifier(host).verify(bank, [])
        policy.build_client_verifier().verify(bank, [])
        usage = bank.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        public_key = bank.public_key()
        assert isinstance(public_key, EllipticCurvePublicKey)
        assert isinstance(public_key.curve, SECP256R1)

    def test_service_certificate_cannot_sign(self, tmp_path: Path) -> None:
        ensure_certificates(tmp_path, ["bank"], NOW)
        constraints = certificate(tmp_path, "bank").extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value.ca) == (True, False)

    def test_certificates_are_created_once(self, tmp_path: Path) -> None:
        assert create_missing(tmp_path, "bank") == ["authority", "bank"]
        before = {file: file.read_bytes() for file in tmp_path.iterdir()}
        assert create_missing(tmp_path, "bank", now=NOW + LIFETIME / 2) == []
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
        assert create_missing(tmp_path, "bank", "card") == ["card"]

    def test_certificate_is_renewed_with_a_new_key_in_its_last_third(self, tmp_path: Path) -> None:
        create_missing(tmp_path, "bank")
        old = certificate(tmp_path, "bank")
        assert create_missing(tmp_path, "bank", now=NOW + LIFETIME * 0.6) == []
        assert create_missing(tmp_path, "bank", now=NOW + LIFETIME * 0.7) == ["bank"]
        new = certificate(tmp_path, "bank")
        assert new.not_valid_after_utc == NOW + LIFETIME * 1.7
        assert new.public_key() != old.public_key()
        assert check_key_pair((tmp_path / "bank.pem").read_bytes(), (tmp_path / "bank.key").read_bytes()) == new

    def test_certificate_does_not_outlive_the_authority(self, tmp_path: Path) -> None:
        (authority,) = ensure_certificates(tmp_path, [], NOW)
        *_, bank = ensure_certificates(tmp_path, ["bank"], authority.valid_until - timedelta(days=9))
        assert bank.valid_until == authority.valid_until

    @pytest.mark.parametrize("damaged", ["bank.pem", "bank.key"])
    def test_certificate_with_a_damaged_or_missing_file_is_replaced(self, tmp_path: Path, damaged: str) -> None:
        create_missing(tmp_path, "bank", "card")
        (tmp_path / damaged).write_bytes((tmp_path / damaged).read_bytes()[:100])
        assert create_missing(tmp_path, "bank", "card") == ["bank"]
        (tmp_path / damaged).unlink()
        assert create_missing(tmp_path, "bank", "card") == ["bank"]
        (tmp_path / damaged).write_bytes((tmp_path / damaged.replace("bank", "card")).read_bytes())
        assert create_missing(tmp_path, "bank", "card") == ["bank"]

    def test_certificate_of_another_authority_or_name_is_replaced(self, tmp_path: Path) -> None:
        ensure_certificates(tmp_path, ["bank"], NOW)
        ensure_certificates(tmp_path / "other", ["bank"], NOW)
        for suffix in ("pem", "key"):
            (tmp_path / f"bank.{suffix}").write_bytes((tmp_path / "other" / f"bank.{suffix}").read_bytes())
        assert create_missing(tmp_path, "bank") == ["bank"]
        for suffix in ("pem", "key"):
            (tmp_path / f"card.{suffix}").write_bytes((tmp_path / f"bank.{suffix}").read_bytes())
        assert create_missing(tmp_path, "bank", "card") == ["card"]

    def test_keys_are_readable_by_their_owner_only(self, tmp_path: Path) -> None:
        ensure_certificates(tmp_path / "made", ["bank"], NOW)
        assert {file.stat().st_mode & 0o777 for file in (tmp_path / "made").glob("*.key")} == {0o600}
        assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("name", ["", "../bank", "Bank", "a b", "authority", "-bank", "x" * 64])
    def test_invalid_host_name_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(CertificateError, match="is not a valid service name"):
            ensure_certificates(tmp_path, [name], NOW)


class TestAuthority:
    def test_interrupted_creation_of_the_authority_is_completed(self, tmp_path: Path) -> None:
        create_missing(tmp_path)
        (tmp_path / "authority.pem").unlink()
        assert create_missing(tmp_path, "bank") == ["authority", "bank"]
        assert create_missing(tmp_path, "bank") == []

    def test_authority_without_key_is_refused_and_left_unchanged(self, tmp_path: Path) -> None:
        create_missing(tmp_path)
        before = (tmp_path / "authority.pem").read_bytes()
        (tmp_path / "authority.key").unlink()
        with pytest.raises(CertificateError, match=r"cannot be used: .*No such file.*authority\.key"):
            ensure_certificates(tmp_path, ["bank"], NOW)
        assert (tmp_path / "authority.pem").read_bytes() == before

    def test_expired_authority_is_refused(self, tmp_path: Path) -> None:
        (authority,) = ensure_certificates(tmp_path, [], NOW)
        with pytest.raises(CertificateError, match="expired at"):
            ensure_certificates(tmp_path, ["bank"], authority.valid_until)

    @pytest.mark.parametrize("damaged", ["authority.pem", "authority.key"])
    def test_damaged_authority_is_refused(self, tmp_path: Path, damaged: str) -> None:
        create_missing(tmp_path)
        (tmp_path / damaged).write_text("nonsense")
        with pytest.raises(CertificateError, match=damaged.replace(".", r"\.")):
            ensure_certificates(tmp_path, ["bank"], NOW)
