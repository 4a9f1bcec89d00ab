"""Write `docs/reference/problems.md`, the problem types of the REST API, from the gateway's table.

Run `python -m docs.reference.generate_problems`; `make gen` does so.
"""

from pathlib import Path
from typing import Final

from gateway.http.problem_types import markdown

_PAGE: Final = Path(__file__).with_name("problems.md")

if __name__ == "__main__":
    _PAGE.write_text(markdown())
