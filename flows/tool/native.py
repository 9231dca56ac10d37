"""Builds native benches with Verilator and g++, keeps the programs in the user's cache, and runs them."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from lightfabric.flows.report import RunError, say
from lightfabric.flows.tool.executable import printed_json, verilator_environment
from lightfabric.flows.tool.verilog_text import convert
from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.bench.chiplet import Plan
from lightfabric.sim.native import link as native
from lightfabric.sim.native import soak

BUILD_BOUND_S = 1800
BOUND_S = 3600
# Of the programs in the cache the one that was not used for longest goes first.
MAX_KEPT = 32

_VERILATOR = (
    "--cc", "--exe", "--build", "-j", "0", "--Mdir", "build", "-o", "bench",
    "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing",
    "-Wno-fatal", "-Wno-lint", "-Wno-style",
    # The code is so wide that -O2 and -O3 take half as long again to compile it, and it runs no faster.
    "-MAKEFLAGS", "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1",
)  # fmt: skip
_RUNTIME = ("verilated.o", "verilated_threads.o")


def build(spec: ChipletSpec, folder: Path, *, waves: bool = False, link: Any = None) -> Path:
    """Return the program for ``spec``, from the user's cache or built now in ``folder``, which must exist, and kept there.

    ``waves`` builds one that writes waveforms. ``link`` is what is benched in place of ``AxiLink``. RunError if a tool is
    missing or does not accept what it is given. A cache that cannot be used is said on stderr.
    """
    return built(native.TOP, _files(spec, link), folder, waves=waves)


def build_soak(spec: ChipletSpec, plan: Plan, folder: Path) -> Path:
    """Return the program that harms chiplets of ``spec``, which are joined by ``plan``; as :func:`build` does otherwise."""
    top = soak.Fabric(spec, plan.routes, plan.fibres)
    return built(soak.TOP, soak.files(top, convert(top, soak.TOP)), folder)


def built(top: str, files: dict[str, str], folder: Path, *, waves: bool = False) -> Path:
    """Return the program of ``files``, ``top``.v and the C++ of which the first is the program; see :func:`build`."""
    with verilator_environment():
        kept = kept_path(top, files, waves)
        if kept is not None and os.access(kept, os.X_OK):
            with contextlib.suppress(OSError):
                # The time of the last use decides which program is forgotten first.
                os.utime(kept)
            return kept
        made = _made(top, files, folder, waves)
    return keep(made, kept)


def run(program: Path, job: native.Run, *, waves: Path | None = None, bound_s: int = BOUND_S) -> dict[str, Any]:
    """Run ``program`` and return its counts, also of packets that are lost; the keys are those of ``sim.native.link``.

    RunError if it breaks or does not end within ``bound_s``. A program built with ``waves`` must be given their file.
    """
    return counts(program, [*job.arguments(), *(("waves", str(waves)) if waves else ())], bound_s)


def counts(program: Path, arguments: list[str], bound_s: int = BOUND_S) -> dict[str, Any]:
    """Run a native bench and return the counts that it prints."""
    # A bench ends with 1 when packets are lost: that is a result.
    return printed_json("the native bench", [program, *arguments], bound_s, (0, 1))


def _files(spec: ChipletSpec, link: Any) -> dict[str, str]:
    from lightfabric.rtl.top import AxiLink

    link = AxiLink(spec, address=1) if link is None else link
    text = convert(link, native.TOP)
    return {f"{native.TOP}.v": text, **native.sources(), native.SHAPE: native.shape(spec, link, text)}


def _made(top: str, files: dict[str, str], folder: Path, waves: bool) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    program = next(name for name in files if name.endswith(".cpp"))
    # Verilator's own runtime is the same in every program: make takes its objects as they lie there.
    (folder / "build").mkdir(exist_ok=True)
    runtime = {name: kept for name in _RUNTIME if (kept := _kept("runtime", name, waves))}
    made = [name for name, kept in runtime.items() if kept.is_file()]
    for name in made:
        shutil.copy(runtime[name], folder / "build" / name)
    kept_as_they_are = [word for name in made for word in ("-MAKEFLAGS", f"-o {name}")]
    options = [*_VERILATOR, *kept_as_they_are, "-CFLAGS", f"-I{folder.resolve()}", *(["--trace-vcd"] if waves else [])]
    command = ["verilator", *options, "--top-module", top, "--prefix", f"V{top}", f"{top}.v", program]
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_BOUND_S, check=False
    )
    if done.returncode:
        lines = done.stdout.splitlines()
        reason = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else str(done.returncode))
        raise RunError(f"Verilator did not build the {top}: {reason.strip()}")
    for name in runtime.keys() - set(made):
        keep(folder / "build" / name, runtime[name])
    return folder / "build" / "bench"


def kept_path(top: str, files: dict[str, str], waves: bool) -> Path | None:
    """Return where the program made of these files is kept, in the cache folder of the user; None if there is no home."""
    return _kept(".", top, waves, *(repr(entry) for entry in sorted(files.items())))


def _kept(within: str, name: str, waves: bool, *parts: str) -> Path | None:
    made_of = [version("verilator"), *map(repr, _VERILATOR), str(waves), *parts]
    try:
        folder = user_cache_path("lightfabric", appauthor=False) / "native" / within
    except RuntimeError:
        return None
    return folder / f"{name}-{hashlib.sha256(chr(10).join(made_of).encode()).hexdigest()[:32]}"


def keep(built: Path, kept: Path | None) -> Path:
    """Copy a program to the cache, whole or not at all, and return where it then is."""
    if kept is None:
        return built
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as beside:
            # A copy beside it and a rename: another process never sees half a program.
            os.replace(shutil.copy(built, beside), kept)
        _forget_the_oldest(kept.parent)
    except OSError as error:
        say(f"lightfabric: the native bench cannot be kept: {error}")
        return built
    return kept


def _forget_the_oldest(folder: Path) -> None:
    programs = sorted(filter(Path.is_file, folder.iterdir()), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in programs[MAX_KEPT:]:
        path.unlink(missing_ok=True)
