"""`python -m docs.reference.generate_settings`: writes `docs/reference/settings.md`, every setting of every process."""

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from kit.runtime.settings import Settings

PROCESSES: Final = {
    "gateway": "gateway",
    "bank": "subgraphs.bank.service",
    "card": "subgraphs.card.service",
    "analytics": "subgraphs.analytics.service",
    "identity": "subgraphs.identity.service",
    "acquirer": "sandbox",
}
"""Their packages: each is started by `python -m` and that."""

_PAGE: Final = Path(__file__).with_name("settings.md")
_HEAD: Final = """# Settings

Generated from the code by `make gen`. Each is an environment variable, or a file of its name in lower case in the
folder that `SECRETS_DIR` names; the environment comes first. `make up` and `docker-compose.yml` set what has no default
here. A setting that is wrong is named when the process starts, and its value never repeated. There is more on
[production](../how-to/run-in-production.md), [TLS](../how-to/set-up-tls.md), [traces](logs-and-traces.md),
[who may do what](access.md), [the graph](graphql.md) and [time-outs](resilience.md).
"""
_TABLE: Final = "\n| setting | default | |\n|---|---|---|\n"


def page() -> str:
    """The page: what several processes have first, then what is each one's own."""
    processes = {name: _settings(package) for name, package in PROCESSES.items()}
    shared: dict[type[Settings], list[str]] = {}
    for name, settings in processes.items():
        for base in reversed(settings.__mro__):
            if issubclass(base, Settings) and base is not settings and _own(base):
                shared.setdefault(base, []).append(name)
    sections = []
    for base, users in shared.items():
        who = "Every process" if len(users) == len(processes) else ", ".join(users)
        sections.append(f"\n## {who}\n\n{_said(base)}\n{_TABLE}{_rows(base)}")
    for name, settings in processes.items():
        sections.append(f"\n## {name} alone\n\n`python -m {PROCESSES[name]}`\n{_TABLE}{_rows(settings)}")
    return _HEAD + "".join(sections)


def _settings(package: str) -> type[Settings]:
    found: type[Settings] = import_module(f"{package}.__main__").Settings
    return found


def _said(base: type[Settings]) -> str:
    """The first paragraph of what its docstring says."""
    return " ".join((base.__doc__ or "").partition("\n\n")[0].split())


def _own(settings: type[Settings]) -> Mapping[str, FieldInfo]:
    """The fields that it adds to its bases'."""
    return {name: settings.model_fields[name] for name in settings.__annotations__ if name in settings.model_fields}


def _rows(settings: type[Settings]) -> str:
    return "".join(_lines(settings))


def _lines(settings: type[Settings]) -> Iterator[str]:
    for name, field in _own(settings).items():
        if not field.description:
            raise SystemExit(f"{settings.__module__}: {name} has no description")
        yield f"| `{name.upper()}` | {_default(field)} | {field.description} |\n"


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "**required**"
    if value is None:
        return "none"
    plain = to_jsonable_python(value)
    return f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


if __name__ == "__main__":
    _PAGE.write_text(page())
