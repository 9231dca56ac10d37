"""Schedules of collectives by value: pieces are moved and added up as the steps say, and all must end where they belong."""

from collections import Counter
from fractions import Fraction
from math import ceil, log2

import numpy as np
import pytest

from lightfabric.placement.collective import algorithm, hierarchical, personal, ring, tree
from lightfabric.placement.collective.sends import Collective

MEMBERS = [2, 3, 4, 5, 6, 7, 8, 12, 16]
CASES = [(kind, name, n) for kind in Collective for n in MEMBERS for name in (*algorithm.names(kind, n), "ring")]
REDUCED = {Collective.ALL_REDUCE, Collective.REDUCE, Collective.REDUCE_SCATTER, Collective.REDUCE_SCATTER_BLOCK}


def run(found, held):
    """``held[node][piece]`` counts whose contributions are in it; sends of a step see what was there before it."""
    for step in found.steps:
        for turn in range(step.times):
            before = held if step.hops > 1 else [dict(each) for each in held]
            pieces, reduces = step.pieces(turn), np.broadcast_to(step.reduces, len(step.source))
            assert ((pieces >= 0).sum(axis=1) == step.counts).all()
            for source, destination, moved, adds in zip(step.source, step.destination, pieces, reduces, strict=True):
                for piece in moved[moved >= 0].tolist():
                    value = before[source][piece]
                    held[destination][piece] = held[destination].get(piece, Counter()) + value if adds else value
    return held


def begun(kind, n, parts):
    """What each member has at first: contributions of its own to all that is summed, or pieces that it owns."""
    pieces = range(n * n if kind == Collective.ALL_TO_ALL else parts)
    owner = {
        Collective.ALL_GATHER: lambda p: p % n, Collective.GATHER: lambda p: p % n, Collective.ALL_TO_ALL: lambda p: p // n,
    }.get(kind, lambda _: 0)  # fmt: skip
    summed = kind in REDUCED | {Collective.BARRIER}
    return [{p: Counter({rank: 1}) for p in pieces if summed or owner(p) == rank} for rank in range(n)] + [{}]


def wanted(kind, n, parts):
    """What each member must have in the end: (rank, piece) to contributions."""
    value = (lambda _: Counter(range(n))) if kind in REDUCED | {Collective.BARRIER} else (lambda _: Counter({0: 1}))
    if kind in (Collective.ALL_GATHER, Collective.GATHER):
        value = lambda p: Counter({p % n: 1})  # noqa: E731
    if kind == Collective.ALL_TO_ALL:
        return {(p % n, p): Counter({p // n: 1}) for p in range(n * n) if p % n != p // n}
    if kind in (Collective.REDUCE, Collective.GATHER):
        return {(0, p): value(p) for p in range(parts)}
    if kind in (Collective.SCATTER, Collective.REDUCE_SCATTER, Collective.REDUCE_SCATTER_BLOCK):
        return {(p % n, p): value(p) for p in range(parts)}
    return {(rank, p): value(p) for rank in range(n) for p in range(parts)}


@pytest.mark.parametrize("n", MEMBERS)
def test_every_piece_ends_where_it_belongs_and_nothing_is_added_twice(n):
    for kind, name, members in CASES:
        if members == n:
            found = algorithm.sends(kind, name, n)
            held = run(found, begun(kind, n, found.parts))
            for (rank, piece), value in wanted(kind, n, found.parts).items():
                assert held[rank].get(piece) == value, (kind.name, name, rank, piece)


@pytest.mark.parametrize("n", MEMBERS)
def test_no_member_moves_less_than_the_lower_bound(n):
    """Chan et al., "Collective communication: theory, practice, and experience", 2007, table 1; a switch may reduce."""
    part = Fraction(n - 1, n)
    least = {
        Collective.ALL_REDUCE: 2 * part, Collective.REDUCE: 1, Collective.BROADCAST: 1, Collective.BARRIER: 0,
    }  # fmt: skip
    for kind, name, members in CASES:
        if members == n and name != "in-network":
            found = algorithm.sends(kind, name, n)
            assert found.share >= least.get(kind, part), (kind.name, name)
            assert found.latencies >= (0 if kind == Collective.BARRIER else 1)


@pytest.mark.parametrize("n", [4, 8, 16])
def test_steps_and_shares_are_those_of_the_textbook(n):
    part, hops = Fraction(n - 1, n), int(log2(n))
    forms = {
        (Collective.ALL_REDUCE, "ring"): (2 * (n - 1), 2 * part), (Collective.ALL_REDUCE, "direct"): (2, 2 * part),
        (Collective.ALL_REDUCE, "halving-doubling"): (2 * hops, 2 * part),
        (Collective.ALL_REDUCE, "tree"): (2 * hops, 2 * hops),
        (Collective.ALL_REDUCE, "multi-ring"): (2 * (n - 1), 2 * part), (Collective.ALL_REDUCE, "in-network"): (2, 1),
        (Collective.ALL_REDUCE, "bidirectional-ring"): (n, 2 * part), (Collective.ALL_GATHER, "ring"): (n - 1, part),
        (Collective.REDUCE_SCATTER, "halving-doubling"): (hops, part), (Collective.ALL_TO_ALL, "direct"): (1, part),
        (Collective.ALL_TO_ALL, "staged"): (hops, Fraction(hops, 2)), (Collective.BROADCAST, "ring"): (n - 1, 1),
        (Collective.ALL_TO_ALL, "hierarchical-2"): (2, Fraction(1, 2) + Fraction(n - 2, n)),
        (Collective.ALL_REDUCE, "hierarchical-2"): (2 + 2 * (hops - 1), 2 * part),
        (Collective.BROADCAST, "pipelined-16"): (16 + n - 2, Fraction(16 + n - 2, 16)),
    }  # fmt: skip
    for (kind, name), form in forms.items():
        found = algorithm.sends(kind, name, n)
        assert (found.latencies, found.share) == form, (kind.name, name)


@pytest.mark.parametrize("n", [2, 3, 8, 13, 32, 33])
def test_two_trees_let_a_chunk_pass_in_logarithmic_time_at_almost_the_full_rate(n):
    found = tree.double_tree_all_reduce(n, 64)
    assert found.latencies <= 64 + 2 * ceil(log2(n)) + 1
    for end in ("source", "destination"):
        moved = sum(np.bincount(getattr(step, end), minlength=n) for step in found.steps)
        # An inner member of a tree sends half of the bytes up and to two children, and a leaf half of them up.
        assert moved.max() <= 2 * found.parts


@pytest.mark.parametrize(("members", "group"), [(8, 4), (12, 3), (6, 1)])
def test_a_piece_goes_once_to_each_group_that_wants_it(members, group):
    random = np.random.default_rng(members)
    owner, needed = random.integers(members, size=40), random.random((40, members)) < 0.4
    found = personal.dispatch(owner, needed, group)
    held = run(found, [{p: Counter({p: 1}) for p in range(40) if owner[p] == rank} for rank in range(members)] + [{}])
    assert all(held[rank][p] == Counter({p: 1}) for p, rank in zip(*np.nonzero(needed), strict=True))
    crossed = Counter()
    for step in found.steps:
        for source, destination, piece in zip(step.source, step.destination, step.pieces(0)[:, 0], strict=True):
            crossed[int(piece), int(destination) // group] += source // group != destination // group
    assert max(crossed.values()) == 1
    apart = {(p, rank // group) for p, rank in zip(*np.nonzero(needed), strict=True) if rank // group != owner[p] // group}
    assert {way for way, count in crossed.items() if count} == apart


def test_rings_of_several_orders_share_the_pieces():
    found = ring.in_rings([np.array([0, 1, 2, 3]), np.array([1, 0, 3, 2])])
    held = run(found, begun(Collective.ALL_GATHER, 4, found.parts))
    assert all(set(held[rank]) == set(range(8)) for rank in range(4))
    assert (found.parts, found.latencies) == (8, 3)


def test_groups_need_not_be_a_power_of_two():
    assert hierarchical.hierarchical(12, 4).latencies == 2 + 1
    assert hierarchical.hierarchical(12, 3).latencies == 2 + 1
    assert hierarchical.hierarchical(16, 4).latencies == 2 + 1
