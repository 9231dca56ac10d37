"""The table of algorithms: what each spreads, and what follows from it backwards.

A name may end in a number: members of a group of ``hierarchical-8``, chunks in ``pipelined-16`` or ``double-tree-4``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from lightfabric.placement.collective import hierarchical, personal, ring, tree
from lightfabric.placement.collective.sends import Collective, Sends

_GATHER, _SPREAD, _DEAL = Collective.ALL_GATHER, Collective.BROADCAST, Collective.SCATTER
_REDUCE, _EXCHANGE = Collective.ALL_REDUCE, Collective.ALL_TO_ALL
CHUNKS = (1, 4, 16, 64)
IN_NETWORK = "in-network"
"""The only one that members cannot do by themselves: it needs a switch that reduces."""

_ALGORITHMS: dict[str, dict[Collective, Callable[[int], Sends]]] = {
    "direct": {_GATHER: personal.each_to_all, _SPREAD: personal.root_to_all, _DEAL: personal.root_to_each},
    "ring": {_GATHER: ring.all_gather, _SPREAD: ring.chain, _DEAL: personal.root_to_each},
    "tree": {_GATHER: tree.all_gather, _SPREAD: tree.broadcast, _DEAL: tree.scatter},
    "halving-doubling": {_GATHER: tree.doubling, _SPREAD: tree.scatter_and_doubling, _DEAL: tree.scatter},
    "bidirectional-ring": {_GATHER: ring.both_ways},
    "multi-ring": {_GATHER: ring.multi_ring},
    IN_NETWORK: {_REDUCE: hierarchical.in_network},
    "staged": {_EXCHANGE: personal.staged},
}
_NUMBERED: dict[str, dict[Collective, Callable[[int, int], Sends]]] = {
    "hierarchical": {_GATHER: hierarchical.hierarchical, _EXCHANGE: personal.by_groups},
    "pipelined": {_SPREAD: ring.pipelined},
    "double-tree": {_SPREAD: tree.double_tree, _REDUCE: tree.double_tree_all_reduce},
}
ALGORITHMS = ("ring", "tree", "direct", "halving-doubling")
"""Those that have every collective; a ring of members is what libraries do with large buffers."""
_OF_PAIRS = "halving-doubling"
_BY_ROOT = "tree"
"""Its all-reduce is a reduce and a broadcast; that of others a reduce-scatter and an all-gather."""
_BACKWARDS = {
    Collective.REDUCE_SCATTER: _GATHER, Collective.REDUCE_SCATTER_BLOCK: _GATHER, Collective.REDUCE: _SPREAD,
    Collective.GATHER: _DEAL,
}  # fmt: skip


def sends(collective: Collective, algorithm: str, members: int) -> Sends:
    """Give the sends of a collective among at least two members by an algorithm that has it, see ``names``.

    A barrier is an all-reduce, of no bytes, and an all-to-all is direct by each of ``ALGORITHMS``. ValueError if
    halving-doubling has another number of members than a power of two.
    """
    of = _functions(algorithm)
    if algorithm == _OF_PAIRS and members & (members - 1):
        raise ValueError(f"must have a power of two of members for {_OF_PAIRS}, not {members}")
    collective = _REDUCE if collective == Collective.BARRIER else collective
    if collective in of:
        return of[collective](members)
    if collective == _EXCHANGE:
        return personal.all_to_all(members)
    if collective in _BACKWARDS:
        spread = of[_BACKWARDS[collective]](members)
        return spread.backwards(reduces=collective != Collective.GATHER)
    spread = of[_SPREAD if algorithm == _BY_ROOT else _GATHER](members)
    return spread.backwards(reduces=True).then(spread)


def names(collective: Collective, members: int) -> list[str]:
    """List the algorithms that differ for a collective of so many members; none that needs other numbers of members."""
    every = [(name, "") for name in _ALGORITHMS]
    every += [("hierarchical", f"-{group}") for group in range(2, members // 2 + 1) if members % group == 0]
    every += [(name, f"-{chunks}") for name in ("pipelined", "double-tree") for chunks in CHUNKS]
    found = dict[Any, str]()
    for stem, number in every:
        of = _functions(stem + number)
        needed = _needed(collective, stem, of)
        # A chain is the limit of pipelined ones with ever more chunks, which no one has.
        if needed not in (None, ring.chain) and not (stem == _OF_PAIRS and members & (members - 1)):
            found.setdefault(needed, stem + number)
    return list(found.values())


def _needed(collective: Collective, stem: str, of: dict[Collective, Any]) -> Any:
    if collective in (_REDUCE, Collective.BARRIER):
        return of.get(_REDUCE) or of.get(_SPREAD if stem == _BY_ROOT else _GATHER)
    if collective == _EXCHANGE and stem in ALGORITHMS:
        return personal.all_to_all
    return of.get(_BACKWARDS.get(collective, collective))


def _functions(algorithm: str) -> dict[Collective, Callable[[int], Sends]]:
    if algorithm in _ALGORITHMS:
        return _ALGORITHMS[algorithm]
    stem, _, number = algorithm.rpartition("-")
    return {kind: partial(_with_number, of, int(number)) for kind, of in _NUMBERED[stem].items()}


def _with_number(of: Callable[[int, int], Sends], number: int, members: int) -> Sends:
    return of(members, number)
