"""Tokens to experts, evenly or not: what each expert and each rank of an ep group gets, and how many copies that takes.

The experts of a token are different ones. If experts are alike, so many of the groups of ``JobSpec`` are drawn as a token
may go to, then experts of these, each choice as likely as any other. If not, all experts of a token are drawn by popularity,
and drawn again unless they differ [Hajek, "Asymptotic theory of rejective sampling" (1964)], at a popularity that gives each
its share of the tokens.
"""

from functools import lru_cache
from itertools import pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import JobSpec

CLOSE, MAX_ROUNDS = 1e-12, 1000
"""How close chances come to those wanted, and in how many rounds at most."""


def zipf(experts: int, exponent: float) -> NDArray[np.float64]:
    """Share of the tokens that each expert gets, the k-th in proportion to 1 / k ** exponent; 0 is even.

    Measured popularity is about as skewed as exponents of 0.5 to 1 [He et al., "FasterMoE" (PPoPP 2022), figure 4].

    Examples:
        >>> zipf(4, 1.0).round(2).tolist()
        [0.48, 0.24, 0.16, 0.12]

    """
    share = np.arange(1, experts + 1) ** -float(exponent)
    return share / share.sum()


@lru_cache(maxsize=1024)
def expert_loads(experts: int, skew: float, ep: int) -> tuple[float, ...]:
    """Tokens for the experts of each of ``ep`` ranks over those of even routing; the busiest rank is the first.

    Experts are dealt out by popularity, ``zipf``: the k-th to rank k modulo ep, which must divide them.

    Examples:
        >>> [round(load, 2) for load in expert_loads(4, 1.0, 2)]
        [1.28, 0.72]

    """
    # Row-major order deals expert k to column k modulo ep.
    return tuple((zipf(experts, skew).reshape(-1, ep).sum(axis=0) * ep).tolist())


def busiest_load(experts: int, skew: float, ep: int) -> float:
    """Tokens for the experts of the busiest of ``ep`` ranks over those of even routing."""
    return max(expert_loads(experts, skew, ep)) if skew and ep > 1 else 1.0


@lru_cache(maxsize=1024)
def copies(job: JobSpec, ep: int, group: int = 1, loads: tuple[float, ...] = ()) -> NDArray[np.float64]:
    """``[source, destination]``: mean copies per token of a rank that go between ranks of an ep group on the way to experts.

    A token goes once to each of the groups of ``group`` ranks next to each other that have experts of its own: to the rank
    there that stands as the source does in its group, which sends a copy to each other rank of the group that has some. The
    results are summed along the same ways back. ``loads`` of the ranks are those of the job if left out.
    """
    home, place = np.divmod(np.arange(ep), group)
    beside, alike = home[:, None] == home, place[:, None] == place
    to_rank, to_group = _reach(job, ep, ep, loads), _reach(job, ep, ep // group, loads)
    # A rank hands on what came to it from its peers in all groups, as many tokens as it has of its own from each.
    found = (~beside & alike) * to_group[home] + (beside & ~np.eye(ep, dtype=bool)) * (ep // group) * to_rank
    found.setflags(write=False)
    return found


def busiest_copies(job: JobSpec, ep: int, group: int = 1) -> float:
    """Copies per token of a rank that the busiest rank sends, or gets, on the way to experts."""
    found = copies(job, ep, group)
    return float(max(found.sum(axis=0).max(), found.sum(axis=1).max()))


def busiest_crossing(job: JobSpec, ep: int, group: int = 1) -> float:
    """Those of ``busiest_copies`` that go to other groups."""
    home = np.arange(ep) // group
    found = copies(job, ep, group) * (home[:, None] != home)
    return float(max(found.sum(axis=0).max(), found.sum(axis=1).max()))


def _reach(job: JobSpec, ep: int, cells: int, loads: tuple[float, ...]) -> NDArray[np.float64]:
    """Chance that a token has an expert in each of so many equal cells of ``ep`` ranks."""
    experts, known = job.model.experts, loads or expert_loads(job.model.experts, job.expert_skew, ep)
    if len(set(known)) == 1:
        size = experts // cells
        return np.array([_even_reach(job, cell * size, (cell + 1) * size) for cell in range(cells)])
    popularity = np.repeat(loads, experts // ep) / experts if loads else zipf(experts, job.expert_skew).reshape(-1, ep).T
    return _skewed_reach(popularity.ravel(), job.model.experts_per_token, np.arange(cells + 1) * (experts // cells))


def _even_reach(job: JobSpec, first: int, end: int) -> float:
    """Chance that a token has one of the experts from ``first`` to before ``end``."""
    size = job.model.experts // job.expert_groups
    edges = (first, *range(first // size * size + size, end, size), end)
    parts = tuple(sorted(after - before for before, after in pairwise(edges)))
    return _chance(parts, size, job.expert_groups, job.max_groups, job.model.experts_per_token)


@lru_cache(maxsize=4096)
def _chance(parts: tuple[int, ...], size: int, groups: int, most: int, per_token: int) -> float:
    """Chance that ``per_token`` experts, of ``most`` of ``groups`` of ``size``, are not all outside of parts of groups.

    Examples:
        >>> _chance((1,), 8, 1, 1, 2)
        0.25

    """
    # Ways to choose among the groups that have a part, by how many are chosen and the experts of their parts together.
    ways = {(0, 0): 1}
    for part in parts:
        for (chosen, inside), count in tuple(ways.items()):
            more = chosen + 1, inside + part
            ways[more] = ways.get(more, 0) + count
    total = comb(groups, most) * comb(most * size, per_token)
    missed = sum(
        count * comb(groups - len(parts), most - chosen) * comb(most * size - inside, per_token)
        for (chosen, inside), count in ways.items()
        if chosen <= most
    )
    return (total - missed) / total


def _skewed_reach(popularity: NDArray[np.float64], per_token: int, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Chance that a token has an expert between each two ``edges``."""
    wanted = _limited(popularity, per_token)
    sure = wanted >= 1
    count = per_token - int(sure.sum())
    drawn = _drawn(wanted[~sure], count)
    before, after = _tallies(drawn, count), _tallies(drawn[::-1], count)[::-1]
    # Experts that all tokens go to are drawn by nobody, so the edges are counted among the others.
    inner = edges - np.concatenate([[0], np.cumsum(sure)])[edges]
    outside = np.sum(before[inner[:-1]] * after[inner[1:], ::-1], axis=1) / before[-1, count]
    none_inside = np.exp(np.diff(np.concatenate([[0], np.cumsum(np.log1p(-drawn))])[inner]))
    return np.where(np.add.reduceat(sure, edges[:-1]) > 0, 1.0, 1 - none_inside * outside)


def _limited(popularity: NDArray[np.float64], per_token: int) -> NDArray[np.float64]:
    """Chance that a token goes to each expert: its share of the copies, at most 1, for others get what is above."""
    found = np.minimum(per_token * popularity, 1.0)
    while found.sum() < per_token * (1 - CLOSE):
        below = found < 1
        found[below] *= (per_token - (~below).sum()) / found[below].sum()
        found = np.minimum(found, 1.0)
    return found


def _drawn(wanted: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Chances of independent draws that give those wanted where ``count`` experts are drawn [Chen, Dempster, Liu 1994]."""
    odds = wanted / (1 - wanted)
    for _ in range(MAX_ROUNDS):
        drawn = odds / (1 + odds)
        before, after = _tallies(drawn, count), _tallies(drawn[::-1], count)[::-1]
        found = drawn * np.sum(before[:-1, :-1] * after[1:, -2::-1], axis=1) / before[-1, count]
        if np.abs(found - wanted).max(initial=0) < CLOSE:
            break
        odds *= wanted * (1 - found) / (found * (1 - wanted))
    return odds / (1 + odds)


def _tallies(chance: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """``[i, n]``: chance that n of the first i are drawn, each by its own chance, for n up to ``most``."""
    found = np.zeros((len(chance) + 1, most + 1))
    found[0, 0] = 1
    for index, each in enumerate(chance.tolist()):
        found[index + 1] = found[index] * (1 - each)
        found[index + 1, 1:] += found[index, :-1] * each
    return found
