"""Files that are replaced whole."""

import os
import tempfile
from pathlib import Path


def write_private_file(path: Path, text: str) -> None:
    """Replaces the file `path` in one step by one that only the caller may read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(name).replace(path)
