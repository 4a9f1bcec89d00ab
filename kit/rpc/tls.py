"""Mutual TLS between services: what a process shows its peers and whom it believes, as three PEM files have it now; and
where plaintext will do.
"""

import threading
from pathlib import Path
from typing import NamedTuple, Self

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kit.runtime.settings import TLSSettings, is_loopback
from kit.telemetry import metrics

log = structlog.get_logger(__name__)


class PlaintextError(Exception):
    """What would leave this machine could be read on its way; the message is for a person and says what to set."""


class CertificateBundle(NamedTuple):
    """What the three files hold, in PEM."""

    certificate: bytes
    key: bytes
    authority: bytes

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Of a channel that shows this certificate, and believes this authority alone."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


class TLS:
    """The three files, read again whenever what they hold is asked for, which may be in any thread. What is new counts
    once it fits together; until then, what was there before does.
    """

    def __init__(self, certificate: Path, key: Path, authority: Path) -> None:
        """Args:
            certificate: of this process, and after it those of who signed it, if the authority did not itself.
            key: of the certificate.
            authority: the certificates of all whose signature is believed.

        Raises:
            OSError: one of them cannot be read.
            ValueError: they do not fit together.
        """
        self._files = (certificate, key, authority)
        self._material = self._read()
        _show(_check(self._material))
        self._refused = ""
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: TLSSettings) -> Self | None:
        """The files that the settings name, if they do; raises as the constructor."""
        certificate, key, authority = settings.tls_certificate, settings.tls_key, settings.tls_authority
        if certificate is None or key is None or authority is None:
            return None
        try:
            return cls(certificate, key, authority)
        except ValueError as error:
            raise ValueError(f"{certificate}, {key} and {authority} do not fit together: {error}") from None

    def current_bundle(self) -> CertificateBundle:
        """What counts now."""
        with self._lock:
            try:
                found = self._read()
                if found != self._material:
                    certificate = _check(found)
                    log.info("new TLS files are in use", until=str(certificate.not_valid_after_utc))
                    _show(certificate)
            except (OSError, ValueError) as error:
                if str(error) != self._refused:
                    log.warning("TLS files do not fit together: those before stay in use", error=str(error))
                self._refused = str(error)
            else:
                self._material, self._refused = found, ""
            return self._material

    def server_credentials(self) -> grpc.ServerCredentials:
        """Of a server that demands a certificate of its clients. Each new connection begins with what counts then."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._configuration, require_client_authentication=True
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, authority = self.current_bundle()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def _read(self) -> CertificateBundle:
        return CertificateBundle(*(file.read_bytes() for file in self._files))


def check_key_pair(certificate: bytes, key: bytes) -> x509.Certificate:
    """The certificate, the first of a chain, of a pair in PEM.

    Raises:
        ValueError: one of them is not whole, or the key is another one's.
    """
    first = x509.load_pem_x509_certificates(certificate)[0]
    try:
        public_key = load_pem_private_key(key, None).public_key()
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the key: {error}") from None
    if public_key != first.public_key():
        raise ValueError("the key is not that of the certificate")
    return first


def require_loopback(address: str) -> None:
    """Returns if all of an address to listen on, or of a gRPC target, is on this machine's loopback.

    Raises:
        PlaintextError: some of it is not, or may not be.
    """
    if not all(map(is_loopback, _hosts(address))):
        raise PlaintextError(
            f"{address} is not loopback alone, and nothing goes there in plaintext: set TLS_CERTIFICATE, TLS_KEY and "
            "TLS_AUTHORITY (`wallet certificates` makes the files), or name 127.0.0.1"
        )


def _check(material: CertificateBundle) -> x509.Certificate:
    """The certificate of a pair whose authority can be read, too.

    Raises:
        ValueError: they do not fit together.
    """
    x509.load_pem_x509_certificates(material.authority)
    return check_key_pair(material.certificate, material.key)


def _show(certificate: x509.Certificate) -> None:
    metrics.CERTIFICATE_EXPIRES.set(certificate.not_valid_after_utc.timestamp())


def _hosts(address: str) -> list[str]:
    scheme, colon, rest = address.partition(":")
    if colon and scheme in {"dns", "ipv4", "ipv6"}:
        address = rest.rpartition("/")[2]
    return [_host(each) for each in address.split(",")]


def _host(address: str) -> str:
    """Of `[::1]:1`, `::1`, `127.0.0.1:1` or `127.0.0.1`."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
