"""The certificates of mutual TLS: an authority of one's own, and a pair for each name, as PEM files in a folder.

`authority.pem` is what everyone believes, `authority.key` what signs: it may live elsewhere between two runs. The pair
of `bank` is `bank.pem` and `bank.key`.
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

from kit.rpc.tls import of_one_key
from kit.runtime.files import write_private

LIFE: Final = timedelta(days=90)
"""Of a pair, or what is left of the authority's if that is less. In the last third of it, it is made anew."""

_AUTHORITY_LIFE: Final = timedelta(days=3650)
_AUTHORITY: Final = "authority"
_CLOCKS_DIFFER: Final = timedelta(minutes=5)
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_SIGNS: Final = {"key_cert_sign": True, "crl_sign": True}
_SHOWS: Final = {"digital_signature": True}


class CertificateError(Exception):
    """The certificates asked for cannot be had; the message is for a person."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key. `made` says that they are new."""

    name: str
    certificate: Path
    key: Path
    until: datetime
    made: bool


class _Authority(NamedTuple):
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey


def ensure_certificates(folder: Path, names: Iterable[str], now: datetime) -> list[Pair]:
    """The authority of the folder, made if there is none, and a valid pair for each name, good at either end of a
    connection to that name, to localhost and to 127.0.0.1.

    A pair is made anew when a third of its life or less is left, or when it is not the authority's, not of that name,
    or not whole. Safe to call again, and after a crash. The authority is never made anew: nobody would be believed.

    Raises:
        CertificateError: a name cannot be one of a host, or the authority's files are not usable.
    """
    authority, first = _authority(folder, now)
    pairs = [first]
    for name in names:
        if not _NAME.fullmatch(name) or name == _AUTHORITY:
            raise CertificateError(f"{name!r} is no name for a service: use that of its host, in lower case")
        pairs.append(_pair(folder, name, authority, now))
    return pairs


def _authority(folder: Path, now: datetime) -> tuple[_Authority, Pair]:
    certificate_file, key_file = _files(folder, _AUTHORITY)
    made = not certificate_file.exists()
    try:
        if made:
            _make_authority(certificate_file, key_file, now)
        certificate = of_one_key(certificate_file.read_bytes(), key_file.read_bytes())
        key = _ec_key(key_file)
    except (OSError, ValueError) as error:
        raise CertificateError(f"{certificate_file} and {key_file} are not usable: {error}") from error
    until = certificate.not_valid_after_utc
    if until <= now:
        raise CertificateError(f"{certificate_file} ended at {until}: begin with another folder")
    return _Authority(certificate, key), Pair(_AUTHORITY, certificate_file, key_file, until, made)


def _make_authority(certificate_file: Path, key_file: Path, now: datetime) -> None:
    """With the key that is there, if one is: it was begun, and not finished."""
    if not key_file.exists():
        write_private(key_file, _pem(generate_private_key(SECP256R1())))
    key = _ec_key(key_file)
    builder = _certificate("wallet authority", key, now, now + _AUTHORITY_LIFE, _SIGNS)
    builder = builder.issuer_name(_called("wallet authority"))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    write_private(certificate_file, _pem(builder.sign(key, SHA256())))


def _ec_key(file: Path) -> EllipticCurvePrivateKey:
    key = load_pem_private_key(file.read_bytes(), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError(f"{file} is no EC key")  # noqa: TRY004  the file is wrong, not the code
    return key


def _pair(folder: Path, name: str, authority: _Authority, now: datetime) -> Pair:
    certificate_file, key_file = _files(folder, name)
    if until := _valid_until(certificate_file, key_file, name, authority, now):
        return Pair(name, certificate_file, key_file, until, made=False)
    key = generate_private_key(SECP256R1())
    until = min(now + LIFE, authority.certificate.not_valid_after_utc)
    builder = _certificate(name, key, now, until, _SHOWS)
    builder = builder.issuer_name(authority.certificate.subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_names(name), critical=False)
    both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(both_ends, critical=False)
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(signer, critical=False)
    certificate = builder.sign(authority.key, SHA256())
    write_private(key_file, _pem(key))
    write_private(certificate_file, _pem(certificate))
    return Pair(name, certificate_file, key_file, certificate.not_valid_after_utc, made=True)


def _valid_until(
    certificate_file: Path, key_file: Path, name: str, authority: _Authority, now: datetime
) -> datetime | None:
    """When the pair that is there ends, if it can stay."""
    try:
        certificate = of_one_key(certificate_file.read_bytes(), key_file.read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return None
    until = certificate.not_valid_after_utc
    stays = names == _names(name) and until - now > (until - certificate.not_valid_before_utc) / 3
    return until if stays else None


def _certificate(
    name: str, key: EllipticCurvePrivateKey, now: datetime, until: datetime, usage: dict[str, bool]
) -> x509.CertificateBuilder:
    """What all of ours have."""
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
        .subject_name(_called(name))
        .public_key(key.public_key())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(until)
        .add_extension(x509.KeyUsage(**unused | usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _names(name: str) -> x509.SubjectAlternativeName:
    hosts = [x509.DNSName(host) for host in dict.fromkeys((name, "localhost"))]
    return x509.SubjectAlternativeName([*hosts, x509.IPAddress(ip_address("127.0.0.1"))])


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.pem", folder / f"{name}.key"


def _pem(what: EllipticCurvePrivateKey | x509.Certificate) -> str:
    if isinstance(what, x509.Certificate):
        return what.public_bytes(Encoding.PEM).decode()
    return what.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
