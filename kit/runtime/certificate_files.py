"""Checks of the files that TLS needs, before a process uses them."""

import ssl
from pathlib import Path


def is_authority_file(file: Path | str) -> bool:
    """Return whether a file that can be read has CA certificates (PEM)."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError:
        return False
    return True


def is_key_pair(certificate: Path | str, key: Path | str) -> bool:
    """Return whether two files have a certificate and its own private key, both PEM and not encrypted."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError):
        return False
    return True
