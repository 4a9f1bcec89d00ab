"""Cost of a document that is not cached: the work of parsing and validating it, whether it is valid or not.

It is computed from the text alone, so that the caller pays before the work begins. The unit is the same as for the cost
of operations (`prices`): about 3 µs of the gateway's time. The cost is an upper bound of the work for ordinary
documents, and for almost all hostile ones: `tests/unit/gateway/graphql/test_document_cost.py` counts the work and
compares it with the cost.
"""

import re
from itertools import islice
from typing import Final

_BASE_COST: Final = 100
"""Cost of each document besides its tokens and characters.

Validation creates an object for each rule, and describes up to five errors.
"""

_TOKEN_COST: Final = 8
"""Cost of a token.

The work for a token is 4 units in ordinary documents, and 6 in documents with many overlapping fields.
"""

_CHARACTERS_PER_UNIT: Final = 16
"""Characters that cost one unit. The lexer reads names, literals and spaces one character at a time."""

_TOKENS: Final = re.compile(r"\w+|[^\w\s,\ufeff]")
"""Matches each token at least once. A string literal or a comment may count as several tokens."""


def document_cost(text: str, max_tokens: int) -> int:
    """Return the cost of parsing and validating a document.

    Args:
        text: text of the document.
        max_tokens: number of tokens after which the parser refuses the text.
    """
    tokens = sum(1 for _ in islice(_TOKENS.finditer(text), max_tokens))
    return _BASE_COST + _TOKEN_COST * tokens + len(text) // _CHARACTERS_PER_UNIT
