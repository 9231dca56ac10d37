"""Options that several commands take are defined here, and numbers whose refusal is one plain sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def _loaded(path: Path | None) -> Any:
    from lightfabric.flows.format.spec_file import load_spec

    return load_spec(path, default="prototype")


def _parser(kind: Callable[[str], Any], must_be: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"must be {must_be}, not {text!r:.60}") from None

    return parse


def number(text: str) -> Any:
    """Return an option that takes a number, with ``text`` as its help."""
    return typer.Option(parser=_parser(float, "a number"), metavar="FLOAT", help=text)


def count(text: str) -> Any:
    """Return an option that takes a whole number, with ``text`` as its help."""
    return typer.Option(parser=_parser(int, "a whole number"), metavar="INTEGER", help=text)


SpecFile = Annotated[Path | None, typer.Argument(metavar="SPEC.toml", help="Description; a built-in example if left out.")]
LoadedSpec = Annotated[
    Any,
    typer.Option(
        "--spec", parser=Path, callback=_loaded, metavar="PATH", help="Description; the built-in prototype if left out."
    ),
]
"""The command gets the ``Spec`` itself: what is wrong with the file is said before the command begins."""
Fidelity = Annotated[str, typer.Option(help="fluid, or cycle: flit by flit.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
