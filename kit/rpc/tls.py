"""Mutual TLS between services, from PEM files that are reloaded when they change; plaintext on loopback only."""

import threading
from pathlib import Path
from typing import NamedTuple, Self

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kit.runtime.settings import PLAINTEXT_REFUSED, TLSSettings, is_loopback_target
from kit.telemetry import metrics

log = structlog.get_logger(__name__)


class PlaintextError(Exception):
    """Plaintext was requested for an address that is not on loopback. The message tells operators what to set."""


class CertificateBundle(NamedTuple):
    """Certificate chain, private key and CA certificates of a process, in PEM."""

    certificate: bytes
    key: bytes
    authority: bytes

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials for a channel: this client certificate, and only these CA certificates."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


class TLS:
    """Certificate, key and CA certificates from three PEM files, which are read again on each use. Thread-safe.

    New files are used as soon as they are consistent; until then the previous files stay in use.
    """

    def __init__(self, certificate: Path, key: Path, authority: Path) -> None:
        """Args:
            certificate: certificate of this process, followed by intermediate CA certificates, if any.
            key: private key of the certificate.
            authority: CA certificates that sign the certificates of peers.

        Raises:
            OSError: a file cannot be read.
            ValueError: the key is not the key of the certificate, or a file is not PEM.
        """
        self._files = (certificate, key, authority)
        self._bundle = self._read()
        _record_expiry(_check(self._bundle))
        self._error = ""
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: TLSSettings) -> Self | None:
        """Load the files that the settings name; return None if they name none.

        Raises the errors of the constructor.
        """
        certificate, key, authority = settings.tls_certificate, settings.tls_key, settings.tls_authority
        if certificate is None or key is None or authority is None:
            return None
        try:
            return cls(certificate, key, authority)
        except ValueError as error:
            raise ValueError(f"{certificate}, {key} and {authority} are not consistent: {error}") from None

    def current_bundle(self) -> CertificateBundle:
        """Return the newest consistent content of the files."""
        with self._lock:
            try:
                bundle = self._read()
                if bundle != self._bundle:
                    certificate = _check(bundle)
                    log.info("TLS files reloaded", until=str(certificate.not_valid_after_utc))
                    _record_expiry(certificate)
            except (OSError, ValueError) as error:
                if str(error) != self._error:
                    log.warning("TLS files rejected", error=str(error))
                self._error = str(error)
            else:
                self._bundle, self._error = bundle, ""
            return self._bundle

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials of a server that requires client certificates. A new connection uses the newest files."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._configuration, require_client_authentication=True
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, authority = self.current_bundle()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def _read(self) -> CertificateBundle:
        return CertificateBundle(*(file.read_bytes() for file in self._files))


def check_key_pair(certificate: bytes, key: bytes) -> x509.Certificate:
    """Return the first certificate of a PEM chain if the key belongs to it.

    Raises:
        ValueError: the certificate or the key is not PEM, or the key belongs to another certificate.
    """
    first = x509.load_pem_x509_certificates(certificate)[0]
    try:
        public_key = load_pem_private_key(key, None).public_key()
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the key cannot be read: {error}") from None
    if public_key != first.public_key():
        raise ValueError("the key does not belong to the certificate")
    return first


def require_loopback(address: str) -> None:
    """Check that all hosts of a listen address or gRPC target are on loopback.

    Raises:
        PlaintextError: a host is neither a loopback address nor `localhost`.
    """
    if not is_loopback_target(address):
        raise PlaintextError(f"{address} {PLAINTEXT_REFUSED}")


def _check(bundle: CertificateBundle) -> x509.Certificate:
    """Return the certificate of a consistent bundle.

    Raises:
        ValueError: the bundle is not consistent.
    """
    x509.load_pem_x509_certificates(bundle.authority)
    return check_key_pair(bundle.certificate, bundle.key)


def _record_expiry(certificate: x509.Certificate) -> None:
    metrics.CERTIFICATE_EXPIRES.set(certificate.not_valid_after_utc.timestamp())
