"""The quadratic assignment solver beside brute force, scipy's FAQ, naive sums and best known values."""

import csv
import json
import subprocess
import sys
import time
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import quadratic_assignment

from lightfabric.flows.format import qaplib
from lightfabric.flows.report import InputError
from lightfabric.placement.mapping.order import orders
from lightfabric.placement.plan import Plan
from lightfabric.placement.qap import local_search as swap
from lightfabric.placement.qap.bound import lower_bound
from lightfabric.placement.qap.faq import centre, faq
from lightfabric.placement.qap.memetic import crossed
from lightfabric.placement.qap.solve import solve
from lightfabric.placement.qap.walk import Budget, Walk

QAPLIB = Path(__file__).parents[4] / "shared" / "data" / "qaplib"
published = pytest.mark.skipif(not QAPLIB.exists(), reason="instances of QAPLIB are in ../shared/data/qaplib")
KINDS = ("symmetric", "flow symmetric", "distance symmetric", "neither")


def naive_value(a, b, p):
    n = range(len(a))
    return sum(a[i][j] * b[p[i]][p[j]] for i in n for j in n)


def best_of_all(a, b):
    a, b = a.tolist(), b.tolist()
    return min(naive_value(a, b, p) for p in permutations(range(len(a))))


def made(kind, n, random, top=50, low=0):
    a, b = random.integers(low, top, (2, n, n))
    if kind in ("symmetric", "flow symmetric"):
        a = a + a.T
    if kind in ("symmetric", "distance symmetric"):
        b = b + b.T
    return a, b


def instance(name):
    read = qaplib.read(QAPLIB / f"{name}.dat")
    return read.flow, read.distance


def best_known():
    with (QAPLIB / "best_known.csv").open() as file:
        return {row["name"]: float(row["best_known"]) for row in csv.DictReader(file)}


def gap(name, **budget):
    return solve(*instance(name), **budget).value / best_known()[name] - 1


@st.composite
def problems(draw, most=6):
    kind, n, seed = draw(st.sampled_from(KINDS)), draw(st.integers(1, most)), draw(st.integers(0, 2**32))
    random = np.random.default_rng(seed)
    a, b = made(kind, n, random, low=draw(st.sampled_from((-50, 0))))
    if draw(st.booleans()):
        np.fill_diagonal(a, 0)
    return a * (random.random((n, n)) < draw(st.sampled_from((0.3, 1.0)))) if kind == "neither" else a, b


@settings(max_examples=60, deadline=None)
@given(problems())
def test_small_problems_are_solved_as_by_brute_force(problem):
    found = solve(*problem, iterations=1000)
    best = best_of_all(*problem)
    assert found.value == naive_value(*problem, found.permutation) == best
    assert found.lower_bound <= best
    assert isinstance(found.value, int)
    assert isinstance(found.lower_bound, int)


@settings(max_examples=40, deadline=None)
@given(problems(), st.floats(1e-6, 1e6))
def test_numbers_may_be_fractions(problem, unit):
    a, b = problem[0] * (unit / 7), problem[1] / 3
    found = solve(a, b, iterations=1000)
    best, scale = best_of_all(a, b), np.abs(a).sum() * np.abs(b).max()
    assert found.value == pytest.approx(best, abs=1e-9 * scale)
    assert found.lower_bound <= best + 1e-12 * scale


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(problems(most=8))
def test_problems_of_eight_are_solved_as_by_brute_force(problem):
    found = solve(*problem, iterations=5000)
    best = best_of_all(*problem)
    assert (found.value, found.lower_bound <= best) == (best, True)


@settings(max_examples=200, deadline=None)
@given(problems(most=7), st.integers(0, 5039))
def test_no_permutation_is_below_the_bound(problem, which):
    n = len(problem[0])
    p = np.random.default_rng(which).permutation(n)
    assert lower_bound(*problem) <= naive_value(*problem, p)


@pytest.mark.parametrize("largest", [50, 10**6], ids=["words", "doubles"])
@pytest.mark.parametrize("kind", KINDS)
def test_changes_by_swaps_are_those_of_the_whole_sum(kind, largest):
    random = np.random.default_rng(7)
    n = 9
    a, b = made(kind, n, random, largest, -largest)
    walk = Walk(a, b, seed=1)
    p = random.permutation(n)
    walk.place(p, naive_value(a, b, p))
    search = walk._search
    assert search.delta.dtype == (np.int32 if largest == 50 else np.float64)
    for _ in range(20):
        before = naive_value(a, b, search.permutation)
        assert search.value[swap.CURRENT] == before
        for u in range(n):
            for v in range(u + 1, n):
                swapped = search.permutation.copy()
                swapped[[u, v]] = swapped[[v, u]]
                assert search.delta[u, v] == naive_value(a, b, swapped) - before
        r, q = random.permutation(n)[:2]
        swap.swap(search, r, q, walk.symmetric)


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_wide_enough_for_what_is_kept_in_them(kind):
    """The largest change that there can be, of numbers as large as are still kept in words."""
    a, b = made(kind, 12, np.random.default_rng(3), low=-50)
    for matrix, sign in ((a, 1), (b, -1)):
        matrix[0], matrix[:, 0], matrix[1], matrix[:, 1] = 100 * sign, 100 * sign, -100 * sign, -100 * sign
    scale = 1.0
    while walk_of(np.rint(a * scale), b).delta.dtype == np.int32:
        scale *= 1.01
    a = np.rint(a * (scale / 1.01))
    search = walk_of(a, b)
    assert search.delta.dtype == np.int32
    assert 0.4 < np.abs(search.delta).max() / 2**30 < 1
    for u in range(12):
        for v in range(u + 1, 12):
            swapped = np.arange(12)
            swapped[[u, v]] = v, u
            assert search.delta[u, v] == naive_value(a, b, swapped) - naive_value(a, b, np.arange(12))


def walk_of(a, b):
    walk = Walk(a, b, seed=1)
    walk.place(np.arange(len(a)), naive_value(a, b, np.arange(len(a))))
    return walk._search


def test_a_tabu_search_does_not_go_straight_back():
    """From the only local optimum of a small problem the walk must climb, and what it returns is still the optimum."""
    a, b = made("symmetric", 8, np.random.default_rng(3))
    walk = Walk(a, b, seed=1)
    best = min((p for p in permutations(range(8))), key=lambda p: naive_value(a.tolist(), b.tolist(), p))
    walk.place(np.array(best), naive_value(a, b, best))
    seen = set()
    budget = Budget(100, None)
    for _ in range(100):
        assert walk.tabu(1, budget).tolist() == list(best)
        seen.add(tuple(walk._search.permutation.tolist()))
    assert len(seen) > 10  # without tabu, 2


@pytest.mark.parametrize("improver", ["tabu", "iterate"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_an_improver_counts_is_what_its_permutation_costs(kind, improver):
    a, b = made(kind, 25, np.random.default_rng(11))
    walk = Walk(a, b, seed=5)
    start = np.arange(25)
    walk.place(start, naive_value(a, b, start))
    best = getattr(walk, improver)(500, Budget(500, None))
    search = walk._search
    assert naive_value(a, b, best) == search.value[swap.BEST] < naive_value(a, b, start)
    assert naive_value(a, b, search.permutation) == search.value[swap.CURRENT]
    assert sorted(best.tolist()) == start.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_faq_goes_where_that_of_scipy_goes(seed):
    a, b = np.random.default_rng(seed).random((2, 20, 20))
    theirs = quadratic_assignment(a, b, options={"rng": np.random.default_rng(0)})
    assert faq(a, b, centre(20)).tolist() == theirs.col_ind.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_a_hidden_optimum_is_found(seed):
    """Large numbers of one matrix on small ones of the other: no permutation is below the rearrangement inequality."""
    random = np.random.default_rng(seed)
    a = random.integers(1, 100, (40, 40))
    hidden = random.permutation(40)
    b = (100 - a)[np.ix_(hidden, hidden)]
    least = int(np.sort(a[~np.eye(40, dtype=bool)]) @ -np.sort(-b[~np.eye(40, dtype=bool)])) + int(
        np.diag(a) @ np.diag(100 - a)
    )
    assert solve(a, b, iterations=40_000).value == least


def test_a_child_has_of_its_parents_what_they_share():
    random = np.random.default_rng(2)
    one = random.permutation(30)
    other = one.copy()
    other[:12] = random.permutation(other[:12])
    child = crossed(one, other, random)
    assert sorted(child.tolist()) == list(range(30))
    assert child[12:].tolist() == one[12:].tolist()
    assert np.mean((child == one) | (child == other)) > 0.7


def test_the_result_depends_on_seed_and_iterations_only():
    a, b = made("symmetric", 30, np.random.default_rng(4))
    first, again = (solve(a, b, iterations=3000, seed=9) for _ in range(2))
    assert (first.permutation.tolist(), first.moves) == (again.permutation.tolist(), again.moves)
    assert first.permutation.tolist() != solve(a, b, iterations=3000, seed=10).permutation.tolist()


@pytest.mark.parametrize("seconds", [0.05, 0.3])
def test_the_budget_is_cpu_time(seconds):
    a, b = made("neither", 80, np.random.default_rng(4))
    solve(a, b, iterations=1)
    start = time.process_time()
    found = solve(a, b, seconds=seconds)
    assert 0.9 * seconds <= found.seconds <= time.process_time() - start <= seconds + 0.2


@pytest.mark.parametrize("budget", [{"iterations": 0}, {"iterations": 500}, {"seconds": 0.05}])
def test_a_start_is_never_made_worse(budget):
    """Megatron's ranks on a ring in the orders of ``lightfabric place``."""
    plan = Plan(dp=8, tp=4, pp=2, micro_batch=1, recompute=False)
    n = plan.gpus
    bytes_of = np.zeros((n, n), np.int64)
    rank = np.arange(n).reshape(plan.dp, plan.pp, plan.tp)
    for axis, size in ((2, 90_000_000), (0, 7_000_000), (1, 2_000_000)):
        bytes_of[rank.ravel(), np.roll(rank, -1, axis).ravel()] += size
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    ring = np.minimum(apart, n - apart)
    starts = [order for _, order in orders(plan, folds=True)]
    values = [naive_value(bytes_of, ring, start) for start in starts]
    found = solve(bytes_of, ring, starts=starts, **budget)
    assert found.lower_bound <= found.value <= min(values)


def test_sums_beyond_64_bits_are_of_doubles():
    a, b = made("symmetric", 6, np.random.default_rng(1))
    huge = solve(a * 10**15, b * 10**15, iterations=1000)
    assert huge.value == pytest.approx(float(solve(a, b, iterations=1000).value) * 1e30, rel=1e-12)
    assert isinstance(huge.value, float)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"flow": np.zeros((2, 3))}, "solve.flow must be n x n of the same n from 1 to 2048, not (2, 3)"),
        ({"distance": np.zeros((3, 3))}, "solve.distance must be n x n of the same n from 1 to 2048, not (3, 3)"),
        ({"flow": np.full((2, 2), np.nan)}, "solve.flow must be finite numbers, not float64 with others"),
        ({"flow": np.full((2, 2), 1e200)}, "solve.flow times solve.distance must be below 1e+300 in sum, not inf"),
        ({"starts": [[0, 0]]}, "solve.starts must be permutations of 0 to 1, not [0, 0]"),
        ({"iterations": None}, "solve must have seconds above 0 or iterations from 0, not None and None"),
        ({"seconds": 0.0}, "solve must have seconds above 0 or iterations from 0, not 0.0 and 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    right = {"flow": np.ones((2, 2)), "distance": np.full((2, 2), 1e200), "iterations": 1}
    with pytest.raises(ValueError) as error:  # noqa: PT011
        solve(**right | arguments)
    assert str(error.value) == said


@published
@pytest.mark.parametrize(
    ("name", "most"), [("nug12", 0), ("esc32h", 0), ("chr20b", 0.03), ("tai30a", 0.01), ("tho40", 0.005)]
)
def test_published_instances_are_solved_in_few_swaps(name, most):
    assert 0 <= gap(name, iterations=100_000) <= most


@published
@pytest.mark.slow
def test_published_instances_are_within_half_a_percent_on_average():
    gaps = {name: gap(name, iterations=400_000) for name in best_known()}
    assert min(gaps.values()) >= 0
    assert max(gaps.values()) < 0.012
    assert sum(gaps.values()) / len(gaps) < 0.002


@published
def test_bounds_are_below_best_known():
    for name, value in best_known().items():
        assert lower_bound(*instance(name)) <= value


WRONG = {
    "": "n must be a whole number from 1 to 2048, not an empty file",
    "0": "n must be a whole number from 1 to 2048, not '0'",
    "-3 1": "n must be a whole number from 1 to 2048, not '-3'",
    "2.5 1": "n must be a whole number from 1 to 2048, not '2.5'",
    "1000000 1 2": "n must be a whole number from 1 to 2048, not '1000000'",
    "1 5": "must hold n and two n x n matrices, 2 numbers after n, not 1",
    "1 5 6 7": "must hold n and two n x n matrices, 2 numbers after n, not more",
    "1 5 six": "number 2 after n must be a finite number, not 'six'",
    "1 nan 6": "number 1 after n must be a finite number, not 'nan'",
    "1 5 1e999": "number 2 after n must be a finite number, not '1e999'",
    "1 5 1_0": "number 2 after n must be a finite number, not '1_0'",
}


@pytest.mark.parametrize(("text", "said"), WRONG.items())
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "wrong.dat"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        qaplib.read(path)
    assert str(error.value) == f"{path}: {said}"


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.dat"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InputError, match="at most 268435456 bytes, not 1073741824 bytes"):
        qaplib.read(path)


def test_files_of_fractions_and_of_many_lines_are_read(tmp_path):
    random = np.random.default_rng(3)
    numbers = random.integers(-(10**15), 10**15, 2 * 300 * 300)  # more than a part of the file
    path = tmp_path / "whole.dat"
    path.write_text("300\n" + "\n".join(map(str, numbers)))
    read = qaplib.read(path)
    assert np.concatenate([read.flow.ravel(), read.distance.ravel()]).tolist() == numbers.tolist()
    path.write_text("1 0.5\n\n 1e3 ")
    assert (qaplib.read(path).flow.tolist(), qaplib.read(path).distance.tolist()) == ([[0.5]], [[1000.0]])


def command(*arguments, code=0):
    """Output, messages, and whether anything slow was imported."""
    script = """
import sys
from lightfabric.flows.cli import main
try:
    main()
finally:
    print("loaded:", *{"numba", "scipy"} & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "qap", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    messages, _, loaded = done.stderr.partition("loaded:")
    return done.stdout, messages, bool(loaded.strip())


def test_the_command_prints_value_permutation_and_bound(tmp_path):
    a, b = made("neither", 6, np.random.default_rng(8))
    path = tmp_path / "six.dat"
    path.write_text("6\n" + " ".join(map(str, [*a.ravel(), *b.ravel()])))
    output, messages, loaded = command(path, "--seconds", "0.1", "--json")
    result = json.loads(output)
    assert (messages, loaded) == ("", True)
    assert result["value"] == naive_value(a, b, result["permutation"]) == best_of_all(a, b) >= result["lower_bound"]
    assert (result["name"], result["n"]) == ("six", 6)
    assert result["gap"] == (result["value"] - result["lower_bound"]) / result["value"]
    assert f"six, n = 6: value {result['value']}, at least {result['lower_bound']}" in command(path, "--seconds", "0.1")[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seconds", "0"], "--seconds must be above 0 and at most 1e+06, not 0"),
        (["--seconds", "nan"], "--seconds must be above 0 and at most 1e+06, not nan"),
        (["--seed", "-1"], "--seed must be from 0 to 4294967296, not -1"),
        ([], "missing.dat: must be a QAPLIB file that can be read, not: No such file or directory"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, options, said):
    output, messages, loaded = command(tmp_path / "missing.dat", *options, code=2)
    assert (output, loaded) == ("", False)
    assert messages.count("\n") == 1
    assert messages.rstrip().endswith(said)
