"""The documentation site: ``sphinx-build -W docs FOLDER``. Needs lightfabric installed, and no network.

A line ``<!-- generated: NAME ... -->`` of a page is replaced by what the code says of itself, so that it cannot go stale.
"""

import pkgutil
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib.metadata import version as installed_version
from inspect import cleandoc
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

project = "lightfabric"
author = copyright = "The lightfabric authors"  # noqa: A001
version = release = installed_version("lightfabric")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"lightfabric {version}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
suppress_warnings = ["ref.python"]  # an annotation names a class that two modules have: it stays without a link

UNITS = {
    "gbps": "Gb/s",
    "mhz": "MHz",
    "bytes": "bytes",
    "flits": "flits",
    "m": "m",
    "us": "µs",
    "gib": "GiB",
    "gbytes_per_s": "GB/s",
    "tflops": "Tflop/s",
    "gpus": "GPUs",
    "hops": "hops",
}
"""Unit of a field by the end of its name; other fields are counts, names or choices."""


def commands() -> Iterator[str]:
    """Describe each command with its arguments and options."""
    from lightfabric.flows.cli import COMMANDS, load_command

    for name, text in COMMANDS.items():
        command = load_command(name)
        context = command.context_class(command, info_name=f"lightfabric {name}")
        yield f"\n## {name}\n\n{text}\n\n```text\n{context.get_usage()}\n```\n"
        yield "| argument or option | what it is |\n|---|---|"
        for parameter in command.params:
            form, what = parameter.get_help_record(context)
            yield f"| {_code(form)} | {_cell(what)} |"


def spec() -> Iterator[str]:
    """Describe each table of a spec file with its fields, their types, units and defaults."""
    from lightfabric.flows.format.spec_file import load_spec

    # Several kinds of job have the same model.
    for title, table in dict.fromkeys(_tables("The file", "", get_type_hints(load_spec)["return"])):
        hints = get_type_hints(table)
        yield f"\n## {title}\n\n```{{eval-rst}}\n{cleandoc(table.__doc__ or '')}\n```\n"
        yield "| field | type | unit | if left out |\n|---|---|---|---|"
        for entry in fields(table):
            yield f"| `{entry.name}` | {_type(hints[entry.name])} | {_unit(entry.name)} | {_default(entry)} |"


def modules(package: str) -> Iterator[str]:
    """Document the modules of a folder."""
    folder = Path(__file__).parent.parent / package
    for module in pkgutil.walk_packages([str(folder)], f"lightfabric.{package}."):
        if not module.ispkg:
            yield f"\n## {module.name}\n\n```{{eval-rst}}\n.. automodule:: {module.name}\n```"


def _tables(title: str, path: str, table: Any) -> Iterator[tuple[str, Any]]:
    """Tables of a file, each with its heading, in the order of the fields that hold them."""
    yield title, table
    told = set[Any]()
    for name, hint in get_type_hints(table).items():
        inner_path = f"{path}.{name}".lstrip(".")
        heading = f"`[[{inner_path}]]`" if get_origin(hint) is tuple else f"`[{inner_path}]`"
        # Prices have many tables alike, of which the first is described for all.
        kinds = [kind for kind in _dataclasses(hint) if kind not in told]
        told.update(kinds)
        for kind in kinds:
            yield from _tables(heading + (f" with {_mark(kind)}" if len(kinds) > 1 else ""), inner_path, kind)


def _mark(table: Any) -> str:
    """What tells a table from the others that may stand in its place: its kind, or its first field."""
    for name in ("kind", "phase"):
        if said := get_args(get_type_hints(table).get(name)):
            return f'`{name} = "{said[0]}"`'
    return f"`{fields(table)[0].name}`"


def _dataclasses(hint: Any) -> list[Any]:
    return [hint] if is_dataclass(hint) else [found for part in get_args(hint) for found in _dataclasses(part)]


def _type(hint: Any) -> str:
    if _dataclasses(hint):
        return "tables" if get_origin(hint) is tuple else "table"
    parts = [part for part in get_args(hint) if part not in (NoneType, ...)]
    if get_origin(hint) is tuple:
        return f"array of {_type(parts[0])}"
    if len(parts) == 1 and get_args(parts[0]):
        return _type(parts[0])
    if any(isinstance(part, str) for part in parts):
        return " or ".join(f'`"{part}"`' for part in parts)
    names = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    return names[parts[0] if parts else hint]


def _unit(name: str) -> str:
    return next((unit for end, unit in UNITS.items() if re.search(rf"(^|_){end}$", name)), "")


def _default(entry: "Field[Any]") -> str:
    if entry.default_factory is not MISSING:
        return "the defaults of its fields"
    if entry.default is MISSING:
        return "an error"
    if entry.default is None:
        return "none"
    if is_dataclass(entry.default):
        return ", ".join(f"`{inner.name} = {_toml(getattr(entry.default, inner.name))}`" for inner in fields(entry.default))
    return f"`{str(entry.default).lower() if isinstance(entry.default, bool) else _toml(entry.default)}`"


def _toml(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else f'"{value}"' if isinstance(value, str) else str(value)


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _insert(_app: Any, _page: str, source: list[str]) -> None:
    generators = {"commands": commands, "spec": spec, "modules": modules}

    def generated(match: re.Match[str]) -> str:
        name, *arguments = match[1].split()
        return "\n".join(generators[name](*arguments))

    source[0] = re.sub(r"<!-- generated: (.*) -->", generated, source[0])


def _list_members(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Turn the members of a component, which end a docstring in the form of numpydoc, into a list."""
    if "Members" in lines:
        start = lines.index("Members")
        members = re.sub(r"\n +", " ", "\n".join(lines[start + 2 :])).splitlines()
        lines[start:] = ["**Members**", "", *(re.sub(r"^(.*?) : ", r"* **\1**: ", member) for member in members)]


def setup(app: Any) -> None:
    """Sphinx calls this once, before it reads the pages."""
    app.connect("source-read", _insert)
    app.connect("autodoc-process-docstring", _list_members)
