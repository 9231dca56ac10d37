"""What relies on numba's internals: one file, for versions on which the tests of the kernel were run."""

import ast
import re
import tomllib
from pathlib import Path

import numba
import pytest
from packaging.requirements import Requirement

from lightfabric.model.kernel import dispatch as caller

ROOT = Path(__file__).parents[3]
VERIFIED = ("0.60", "0.61", "0.62", "0.63", "0.64", "0.65", "0.66", "0.67", "0.68")
"""Of numba: with the last release of each, test_kernel passed, with the first and the last test_fluid and test_qap too."""
FOLDERS = ("examples", "flows", "model", "placement", "rtl", "sim")
DOCUMENTED = {"numba", "numba.extending"}
INSIDES = re.compile(
    r"\b(_nrt|forceinline|_cache_file|_source_stamp|overloads|target_context|fix_integer_index|fndesc|call_conv)\b"
)


def test_this_numba_is_one_whose_internals_are_known() -> None:
    version = ".".join(numba.__version__.split(".")[:2])
    if version not in VERIFIED:
        pytest.fail(
            f"model/caller.py uses internals of numba that hold for {VERIFIED[0]} to {VERIFIED[-1]}, not for "
            f"{numba.__version__}: run the tests of kernel, fluid and qap, then name it in VERIFIED and in pyproject.toml"
        )


def test_the_package_takes_the_verified_versions_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (numbas,) = (r for r in map(Requirement, project["dependencies"]) if r.name == "numba")
    taken = [f"0.{minor}" for minor in range(40, 120) if f"0.{minor}.1" in numbas.specifier]
    assert taken == list(VERIFIED)
    assert "1.0" not in numbas.specifier


def test_one_file_alone_uses_what_numba_does_not_document() -> None:
    found = set[Path]()
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text()
        modules = {n.module for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom) and n.module}
        if INSIDES.search(text) or {m for m in modules if re.match(r"numba\b", m)} - DOCUMENTED:
            found.add(path)
    assert found == {Path(caller.__file__).resolve()}
