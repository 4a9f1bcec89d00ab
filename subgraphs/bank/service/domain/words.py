"""Words on a transfer: a description for both sides, the sender's reference, and metadata of the creator."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from wallet.errors import FieldViolation
from wallet.texts import text_problem

MAX_DESCRIPTION: Final = 140
MAX_REFERENCE: Final = 64
_MAX_ENTRIES: Final = 16
_MAX_KEY: Final = 64
_MAX_VALUE: Final = 128


@dataclass(frozen=True, slots=True)
class Words:
    """Words on a transfer. An empty text means that there is none.

    Attributes:
        description: text for both sides. It can be erased later.
        reference: the sender's own id of the transfer, for those who may read the sender's account.
        metadata: data of the creator, for the creator alone.
        is_reference_unique: whether the transfer is refused if the account has an earlier one with the reference.
        created_by: principal of the caller who made the transfer.
    """

    description: str = ""
    reference: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    is_reference_unique: bool = False
    created_by: str = ""

    @property
    def canonical(self) -> str:
        """Text of the words for the fingerprint of a request. Equal words have equal texts."""
        words = {
            "description": self.description,
            "reference": self.reference,
            "metadata": dict(self.metadata),
            "isReferenceUnique": self.is_reference_unique,
        }
        return "words " + json.dumps({name: value for name, value in words.items() if value}, sort_keys=True)

    def violations(self) -> list[FieldViolation]:
        """Return the violations of the rules of words."""
        problems = [
            ("description", text_problem(self.description, MAX_DESCRIPTION)),
            ("reference", text_problem(self.reference, MAX_REFERENCE)),
            ("metadata", self._metadata_problem()),
        ]
        if self.is_reference_unique and not self.reference:
            problems.append(("uniqueReference", "needs a reference"))
        return [FieldViolation(name, problem) for name, problem in problems if problem is not None]

    def visible_to(self, principal: str, *, reads_sender: bool) -> Self:
        """Return the words that a caller may read.

        Args:
            principal: principal of the caller.
            reads_sender: whether the caller may read the sender's account.
        """
        return replace(
            self,
            reference=self.reference if reads_sender else "",
            metadata=self.metadata if principal == self.created_by else {},
        )

    def _metadata_problem(self) -> str | None:
        if len(self.metadata) > _MAX_ENTRIES:
            return f"must have at most {_MAX_ENTRIES} entries"
        if "" in self.metadata:
            return "must not have an empty key"
        problems = [text_problem(key, _MAX_KEY) for key in self.metadata]
        problems += [text_problem(value, _MAX_VALUE) for value in self.metadata.values()]
        return next((problem for problem in problems if problem is not None), None)
