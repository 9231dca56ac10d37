"""The command line knows the commands' names and turns how a run ends into an exit code.

Options and work are in ``flows/command``, a file for each.

Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 130 interrupted. A command's file is imported when the command
is called, and imports what is slow inside its functions, so that a wrong input is said before numba, amaranth or matplotlib
would have been loaded.
"""

import os
import signal
import sys
import warnings
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from lightfabric.flows.report import InputError, RunError, say
from lightfabric.model.spec import SpecError

COMMANDS = {
    "study": "Training time over GPU counts and fabrics: table, results.csv, figures, manifest.json.",
    "characterize": "Measure the timing of link and switch on the RTL.",
    "place": "Parallelism, order of ranks, sparsity, locality and lower bounds.",
    "predict": "Step time, its parts and memory of the plans in a table.",
    "qap": "Map facilities onto locations: a quadratic assignment problem, with a lower bound.",
    "replay": "Run the task graph of a real job on a fabric.",
    "collective": "Time of every algorithm of a collective on a fabric.",
    "faults": "Working GPUs that have no use while nodes of a trace of faults are down.",
    "topology": "A cabling of cubes of GPUs by optical switches for all-to-alls, beside its bounds.",
    "network": "Synthetic traffic on the cycle model of a network of routers.",
    "sim": "Simulate a block's RTL.",
    "verilog": "Write a block as Verilog.",
    "registers": "Write the register map of a link.",
    "synth": "Place and route a block: LUT, FF, BRAM, Fmax.",
    "verify": "Prove properties of the RTL.",
    "bench": "Measure speed against named references, as ratios, and the cost model against measured steps.",
}
"""Each is the ``main`` of the file of its name in ``flows/command``, and this is its help."""


class _LazyGroup(TyperGroup):
    """Knows every command by name and help, and imports its file when it is called or its options are completed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command and the rest of the arguments; raise a UsageError if there is no such command."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load_command(str(name)), rest


def load_command(name: str) -> Any:
    """Import a command and return it as click sees it, with all its options."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, help=COMMANDS[name])(import_module(f"lightfabric.flows.command.{name}").main)
    return typer.main.get_command(alone)


app = typer.Typer(cls=_LazyGroup, pretty_exceptions_enable=False, rich_markup_mode=None)

# Typer brings its own copy of click from 0.26 on, so the class is looked up in the one that it uses.
_UsageError: Any = typer.BadParameter.__mro__[1]


def main() -> NoReturn:
    """Run the command line and leave the process with the exit code of the run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(_run())


def _run() -> int:
    try:
        code = _invoked()
        print(end="", flush=True)
    except (KeyboardInterrupt, typer.Abort):
        warnings.simplefilter("ignore")  # of hardware that was built and not used
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _failed(f"{error.filename or 'a file'} cannot be used: {error.strerror}", 1)
    return code


def _invoked() -> int:
    try:
        code = app(standalone_mode=False)
    except (InputError, SpecError) as error:
        return _failed(error, 2)
    except RunError as error:
        return _failed(error, 1)
    except _UsageError as error:
        return _failed(f"{error.format_message().rstrip('.')}; see lightfabric --help", 2)
    return code if isinstance(code, int) else 0


def _failed(error: object, code: int) -> int:
    say(f"lightfabric: {' '.join(str(error).split())}")
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("lightfabric"))
        raise typer.Exit


@app.callback()
def _lightfabric(
    _: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """From the description of an optical-I/O chiplet to hardware, timing and training time."""


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)


if __name__ == "__main__":
    main()
