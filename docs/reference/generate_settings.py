"""Write `docs/reference/settings.md`, the settings of all processes, from their `Settings` classes.

Run `python -m docs.reference.generate_settings`; `make gen` does so.
"""

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
"""Package of each process: `python -m PACKAGE` starts it."""

_PAGE: Final = Path(__file__).with_name("settings.md")
_HEAD: Final = """# Settings

Generated from the code by `make gen`.

## Set a value

Set an environment variable, or create a file with the setting's name in lower case in the folder `SECRETS_DIR`.
The environment takes precedence. `make up` and `docker-compose.yml` set the settings that have no default here.
A process with a wrong setting does not start; the message names the setting and never contains its value.
A renamed setting keeps its old name for one release. A process that reads an old name logs a warning with the new name.

## Related pages

[production mode](../how-to/run-in-production.md), [TLS](../how-to/set-up-tls.md),
[traces](logs-and-traces.md#settings-for-traces), [permissions](access.md), [GraphQL](graphql.md) and
[time-outs](resilience.md#time-outs-retries-and-limits-of-outbound-calls).
"""
_TABLE: Final = "\n| setting | default | meaning |\n|---|---|---|\n"


def page() -> str:
    """Return the page: first the settings of several processes, then those of each single process."""
    processes = {name: _settings(package) for name, package in PROCESSES.items()}
    shared: dict[type[Settings], list[str]] = {}
    for name, settings in processes.items():
        for base in reversed(settings.__mro__):
            if issubclass(base, Settings) and base is not settings and _own(base):
                shared.setdefault(base, []).append(name)
    sections = []
    for base, users in shared.items():
        title = base.__name__.removesuffix("Settings") or "Common"
        readers = "all processes" if len(users) == len(processes) else ", ".join(users)
        summary = "" if base is Settings else f"{_summary(base)}\n\n"
        sections.append(f"\n## {title} settings\n\n{summary}Read by: {readers}.\n{_TABLE}{_rows(base)}")
    for name, settings in processes.items():
        command = f"`python -m {PROCESSES[name]}`"
        sections.append(f"\n## {name}\n\nRead by this process only: {command}.\n{_TABLE}{_rows(settings)}")
    return _HEAD + "".join(sections)


def _settings(package: str) -> type[Settings]:
    settings: type[Settings] = import_module(f"{package}.__main__").Settings
    return settings


def _summary(base: type[Settings]) -> str:
    """Return the first paragraph of the class's docstring."""
    return " ".join((base.__doc__ or "").partition("\n\n")[0].split())


def _own(settings: type[Settings]) -> Mapping[str, FieldInfo]:
    """Return the fields that the class itself declares, without those of its bases."""
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
