"""The most common passwords: about 20,000, from Django's list, which `common-passwords.LICENSE.txt` describes."""

import gzip
import unicodedata
from importlib import resources
from typing import Final

_FILE: Final = "common-passwords.txt.gz"


def is_common(password: str) -> bool:
    """Return whether the password is in the list, without regard to case and to spaces around it."""
    return _fold(password) in _COMMON


def _fold(password: str) -> str:
    return unicodedata.normalize("NFKC", password).casefold().strip()


def _read_list() -> frozenset[str]:
    compressed = resources.files(__package__).joinpath(_FILE).read_bytes()
    return frozenset(map(_fold, gzip.decompress(compressed).decode().splitlines()))


_COMMON: Final = _read_list()
