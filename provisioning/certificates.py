"""Certificates for mutual TLS: a private authority, and a certificate and key per service, as PEM files in a folder.

Peers trust `authority.pem`. `authority.key` signs the certificates; between two runs it may be stored elsewhere. The
service `bank` has the files `bank.pem` and `bank.key`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kit.rpc.tls import check_key_pair
from kit.runtime.files import write_private_file

LIFETIME: Final = timedelta(days=90)
"""Validity of a service certificate; shorter if the authority's certificate expires earlier."""

_AUTHORITY_LIFETIME: Final = timedelta(days=3650)
_AUTHORITY: Final = "authority"
_CLOCK_SKEW: Final = timedelta(minutes=5)
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_AUTHORITY_USAGE: Final = {"key_cert_sign": True, "crl_sign": True}
_SERVICE_USAGE: Final = {"digital_signature": True}


class CertificateError(Exception):
    """The certificates cannot be created. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files of a certificate and its key. `valid_until` is the end of the certificate's validity.

    `is_new` tells whether this run created the certificate.
    """

    name: str
    certificate: Path
    key: Path
    valid_until: datetime
    is_new: bool


class _Authority(NamedTuple):
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey


def ensure_certificates(folder: Path, names: Iterable[str], now: datetime) -> list[CertificateFiles]:
    """Create or renew certificates. Return the authority's certificate, followed by a valid certificate for each name.

    Each certificate serves as client and server certificate for its name, localhost and 127.0.0.1. It is replaced when
    at most a third of its lifetime remains, when the authority did not sign it, when it has other names, or when a file
    is missing or damaged. The authority is never replaced, because peers would no longer trust the certificates that it
    has signed. Safe to repeat, also after a crash.

    Args:
        folder: folder of the PEM files; created if missing.
        names: host names of the services.
        now: the current time, with a time zone.

    Raises:
        CertificateError: a name is not a valid host name, or the authority's files cannot be used.
    """
    authority, authority_files = _load_or_create_authority(folder, now)
    certificates = [authority_files]
    for name in names:
        if not _NAME.fullmatch(name) or name == _AUTHORITY:
            raise CertificateError(f"{name!r} is not a valid service name: use the host name in lower case")
        certificates.append(_load_or_create(folder, name, authority, now))
    return certificates


def _load_or_create_authority(folder: Path, now: datetime) -> tuple[_Authority, CertificateFiles]:
    certificate_file, key_file = _file_names(folder, _AUTHORITY)
    is_new = not certificate_file.exists()
    try:
        if is_new:
            _create_authority(certificate_file, key_file, now)
        certificate = check_key_pair(certificate_file.read_bytes(), key_file.read_bytes())
        key = _load_ec_key(key_file)
    except (OSError, ValueError) as error:
        raise CertificateError(f"{certificate_file} and {key_file} cannot be used: {error}") from error
    until = certificate.not_valid_after_utc
    if until <= now:
        raise CertificateError(f"{certificate_file} expired at {until}: start with a new folder")
    return _Authority(certificate, key), CertificateFiles(_AUTHORITY, certificate_file, key_file, until, is_new)


def _create_authority(certificate_file: Path, key_file: Path, now: datetime) -> None:
    """Create the authority. Reuse its key if an interrupted run left one."""
    if not key_file.exists():
        write_private_file(key_file, _to_pem(generate_private_key(SECP256R1())))
    key = _load_ec_key(key_file)
    builder = _certificate_builder("wallet authority", key, now, now + _AUTHORITY_LIFETIME, _AUTHORITY_USAGE)
    builder = builder.issuer_name(_common_name("wallet authority"))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    write_private_file(certificate_file, _to_pem(builder.sign(key, SHA256())))


def _load_ec_key(file: Path) -> EllipticCurvePrivateKey:
    key = load_pem_private_key(file.read_bytes(), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError(f"{file} does not contain an EC key")  # noqa: TRY004  the file is wrong, not the code
    return key


def _load_or_create(folder: Path, name: str, authority: _Authority, now: datetime) -> CertificateFiles:
    certificate_file, key_file = _file_names(folder, name)
    if until := _valid_until(certificate_file, key_file, name, authority, now):
        return CertificateFiles(name, certificate_file, key_file, until, is_new=False)
    key = generate_private_key(SECP256R1())
    until = min(now + LIFETIME, authority.certificate.not_valid_after_utc)
    builder = _certificate_builder(name, key, now, until, _SERVICE_USAGE)
    builder = builder.issuer_name(authority.certificate.subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_alternative_names(name), critical=False)
    both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(both_ends, critical=False)
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(signer, critical=False)
    certificate = builder.sign(authority.key, SHA256())
    write_private_file(key_file, _to_pem(key))
    write_private_file(certificate_file, _to_pem(certificate))
    return CertificateFiles(name, certificate_file, key_file, certificate.not_valid_after_utc, is_new=True)


def _valid_until(
    certificate_file: Path, key_file: Path, name: str, authority: _Authority, now: datetime
) -> datetime | None:
    """Return the end of validity of the existing certificate, or None if it has to be replaced."""
    try:
        certificate = check_key_pair(certificate_file.read_bytes(), key_file.read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return None
    until = certificate.not_valid_after_utc
    is_usable = names == _alternative_names(name) and until - now > (until - certificate.not_valid_before_utc) / 3
    return until if is_usable else None


def _certificate_builder(
    name: str, key: EllipticCurvePrivateKey, now: datetime, until: datetime, usage: dict[str, bool]
) -> x509.CertificateBuilder:
    """Return a builder with the properties that all our certificates share."""
    unused = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(_common_name(name))
        .public_key(key.public_key())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(until)
        .add_extension(x509.KeyUsage(**unused | usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative_names(name: str) -> x509.SubjectAlternativeName:
    hosts = [x509.DNSName(host) for host in dict.fromkeys((name, "localhost"))]
    return x509.SubjectAlternativeName([*hosts, x509.IPAddress(ip_address("127.0.0.1"))])


def _file_names(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.pem", folder / f"{name}.key"


def _to_pem(value: EllipticCurvePrivateKey | x509.Certificate) -> str:
    if isinstance(value, x509.Certificate):
        return value.public_bytes(Encoding.PEM).decode()
    return value.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
