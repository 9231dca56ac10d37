"""``lightfabric qap`` solves a quadratic assignment problem from a file of QAPLIB."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightfabric.flows.format.qaplib import Instance, read
from lightfabric.flows.option import AsJson, count, number
from lightfabric.flows.report import InputError, print_json, require_between

if TYPE_CHECKING:
    from lightfabric.placement.qap.solve import Solution

_MAX_SECONDS = 1e6
_MAX_SEED = 1 << 32


def main(
    file: Annotated[Path, typer.Argument(help="n and two n x n matrices, as in QAPLIB.")],
    seconds: Annotated[float, number("CPU time of bound and search, without compilation at the first run.")] = 1.0,
    seed: Annotated[int, count("Of all that is random.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Check the options, read the problem, solve it and print one JSON object or a few lines."""
    if not 0 < seconds <= _MAX_SECONDS:
        raise InputError(f"--seconds must be above 0 and at most {_MAX_SECONDS:g}, not {seconds:g}")
    require_between("--seed", 0, _MAX_SEED, seed)
    instance = read(file)
    from lightfabric.placement.qap.solve import solve

    try:
        solution = solve(instance.flow, instance.distance, seconds=seconds, seed=seed)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    result = columns(instance, solution)
    if as_json:
        print_json(result)
    else:
        print(_text(result))


def columns(instance: Instance, solution: "Solution") -> dict[str, Any]:
    """Return what is printed, in which ``gap`` is how far the value may be above the least, as a share of it."""
    value, bound = solution.value, solution.lower_bound
    return {
        "name": instance.name,
        "n": len(instance.flow),
        "value": value,
        "lower_bound": bound,
        "gap": (value - bound) / max(abs(value), abs(bound)) if value != bound else 0.0,
        "seconds": solution.seconds,
        "moves": solution.moves,
        "permutation": solution.permutation.tolist(),
    }


def _text(result: dict[str, Any]) -> str:
    head = f"{result['name']}, n = {result['n']}: value {result['value']}, at least {result['lower_bound']}"
    work = f"{result['moves']} swaps in {result['seconds']:.2f} CPU-seconds"
    return f"{head} ({100 * result['gap']:.2f} % below), {work}\n{' '.join(map(str, result['permutation']))}"
