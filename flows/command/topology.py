"""``lightfabric topology`` finds a cabling of cubes of GPUs by optical switches that serves an all-to-all best."""

import re
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightfabric.flows.format.spec_file import load_variants
from lightfabric.flows.option import AsJson, SpecFile, count
from lightfabric.flows.report import InputError, print_json, print_table, require_between, require_file, written_whole
from lightfabric.model.spec.direct import MAX_BALANCED

if TYPE_CHECKING:
    from lightfabric.model.fabric.direct.cubes import Cubes
    from lightfabric.placement.synthesis.cube_cabling import CubeCabling

MAX_STEPS, MAX_SEED = 10**8, 1 << 32
_SHAPE = re.compile(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5}){0,5}", re.ASCII)


def main(
    path: SpecFile = None,
    shape: Annotated[str, typer.Option(metavar="AxBxC", help="GPUs along each axis, all cubes together.")] = "4x4x8",
    cube_edge: Annotated[int, count("GPUs along each axis of a cube.")] = 4,
    steps: Annotated[int, count("Of each of three searches; 3000 take 4 CPU-seconds for 128 GPUs.")] = 3000,
    seed: Annotated[int, count("Of all that is random: the same seed finds the same cabling.")] = 1,
    output: Annotated[Path | None, typer.Option("-o", help="File to write: the description and one more fabric.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the options, search, write a spec file and print loads beside their bounds, as a table or one JSON object."""
    require_between("--steps", 1, MAX_STEPS, steps)
    require_between("--seed", 0, MAX_SEED, seed)
    name, cubes = f"synthesised {shape}", _cubes(shape, cube_edge)
    text = None if output is None else _spec_text(path, output, name)
    from lightfabric.placement.synthesis.cube_cabling import synthesised_cabling

    found = synthesised_cabling(cubes, seed, steps)
    if output is not None and text is not None:
        with written_whole(output) as beside:
            beside.write_text(f"{text}\n{_table(name, found)}", encoding="utf-8")
    rows = _rows(cubes, found)
    if as_json:
        print_json(
            {"shape": cubes.shape, "cube_edge": cube_edge, "loads": rows, "permutations": found.permutations.tolist()}
        )
    else:
        _print(f"an all-to-all on cubes of {cube_edge} in {shape}", rows)


def _cubes(shape: str, edge: int) -> "Cubes":
    if not _SHAPE.fullmatch(shape):
        raise InputError(f"--shape must be lengths such as 4x4x8, not {shape!r:.60}")
    lengths = tuple(map(int, shape.split("x")))
    require_between("--cube-edge", 2, max(lengths), edge)
    if any(length % edge for length in lengths) or not edge ** len(lengths) < prod(lengths) <= MAX_BALANCED:
        raise InputError(f"--shape must be of 2 or more cubes of edge {edge} and at most {MAX_BALANCED} GPUs, not {shape}")
    from lightfabric.model.fabric.direct.cubes import Cubes

    return Cubes(lengths, edge)


def _spec_text(path: Path | None, output: Path, name: str) -> str:
    """Return the text of a spec file that has no fabric of this name yet."""
    require_file(output)
    if name in {fabric.name for variant in load_variants(path) for fabric in variant.spec.fabrics}:
        raise InputError(f"{path}: fabrics must be of names other than {name!r}, which is to be added")
    example = files("lightfabric.examples") / "gpt3-175b.toml"
    return (path or example).read_text(encoding="utf-8")


def _table(name: str, found: "CubeCabling") -> str:
    switches = "".join(f"    {each},\n" for each in found.permutations.tolist())
    return (
        f'[[fabrics]]\nname = "{name}"  # found by lightfabric topology\nkind = "cube-torus"\n'
        f"shape = {list(found.cubes.shape)}\ncube_edge = {found.cubes.edge}\npermutations = [\n{switches}]\n"
    )


def _rows(cubes: "Cubes", found: "CubeCabling") -> list[dict[str, Any]]:
    """Return the loads of what the switches can make, and what no cabling is below."""
    from lightfabric.model.fabric.direct.lattice import Lattice
    from lightfabric.placement.synthesis.cube_cabling import least_load

    rows = list[dict[str, Any]]()
    for name, twisted in (("torus", False), ("twisted-torus", True)):
        loads = Lattice(cubes.shape, twisted).split_loads()
        rows.append(_row(name, float(sum(loads) / len(loads)), float(max(loads))))
    return [
        *rows,
        _row("synthesised", found.mean_load, found.split_load, found.single_load),
        _row("any", least_load(cubes)),
    ]


def _row(name: str, bound: float, split: float | None = None, single: int | None = None) -> dict[str, Any]:
    return {"cabling": name, "bound": bound, "split": split, "single": single}


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    header = ("cabling", "bound", "split", "single")
    cells = [[row["cabling"], *("-" if row[word] is None else f"{row[word]:.6g}" for word in header[1:])] for row in rows]
    print_table(header, [cells[:-1], cells[-1:]], title, right=header[1:])
    print(
        "messages over the fullest link, one for each pair: bound: the sum of distances over links, for any cabling the "
        "least that there can be; split: each over several shortest ways; single: each over one"
    )
