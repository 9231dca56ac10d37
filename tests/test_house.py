"""The house as rules: small folders and files, names for one thing, kinds of fabric in their own files, no dead code."""

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import get_args

import grimp
import pytest

from lightfabric.model.fabric import fabric as model
from lightfabric.model.spec import ChipletSpec, FabricSpec
from lightfabric.placement.fabric import fabric as placement

ROOT = Path(__file__).parent.parent
FOLDERS = ("flows", "model", "placement", "rtl", "sim")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MAX_FILES, MAX_CODE_LINES, MIN_WORDS = 13, 300, 5

ONE_FILE_PER_BLOCK = {"rtl", "flows/command"}
"""Folders that may be larger, since a block or a command is found by its file."""
OF_ONE_THING = {
    # Commands are named as on the command line, whatever does the work behind them.
    *(path.stem for path in (ROOT / "flows" / "command").glob("*.py")),
    # A kind of fabric has a file at each level, and so has what all kinds share.
    *(path.stem for path in (ROOT / "placement" / "fabric").rglob("*.py")),
    # A block has its hardware, its model, its benches and its proofs.
    *(path.stem for path in (ROOT / "rtl").rglob("*.py")),
    "cluster",  # chiplets with their GPUs: in the cycle model, in RTL, and the two compared
    "transformer",  # its shape, and what it is as a job
}
"""Names that several folders may have."""
NO_COMMAND = re.compile(
    r"lightfabric\.(sim\.cocotb\.\w+"  # loaded by the simulator, by name
    r"|sim\.bench\.(crossing|register|training|window)|sim\.native\.cluster|flows\.experiment\.cluster"  # benches of tests
    r"|sim\.(plant|photonic)\.\w+|flows\.tool\.tuner_run"  # the tuner's plant and bench, of tests
    r"|sim\.circuit\.\w+|rtl\.(add_drop|claims|steering)"  # benches of tests, and their blocks
    r"|sim\.line\.(bathtub|ber_tester|prbs)|sim\.fec\.codeword"
    r"|rtl\.fec\.transcoder"  # control blocks, which the link has none of within its codewords
    r"|flows\.experiment\.calibrate"  # a script, see docs/cost-model.md
    r"|model\.kernel\.waveform|model\.cycle\.photonic"  # of the kernel's users, see docs/kernel.md
    r"|placement\.circuit\.multi_shot)$"  # a solver for designers, see docs/why.md
)
"""Modules that neither a command nor the front door reaches, each with the reason why it is there."""


def code_lines(path):
    """Lines of code: all but blank ones, comments and docstrings."""
    text = path.read_text()
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        for part in getattr(node, "body", []) if isinstance(getattr(node, "body", None), list) else []:
            if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str):
                lines.difference_update(range(part.lineno, part.end_lineno + 1))
    return len(lines)


def name(path):
    return path.relative_to(ROOT).as_posix()


def test_no_folder_is_too_large_to_read_at_a_glance():
    sizes = {name(folder): len(list(folder.glob("*.py"))) - 1 for folder in {path.parent for path in SOURCES}}
    assert {folder for folder, files in sizes.items() if files > MAX_FILES} == ONE_FILE_PER_BLOCK


def test_no_file_is_too_long():
    assert {name(path): lines for path in SOURCES if (lines := code_lines(path)) > MAX_CODE_LINES} == {}


def test_a_file_name_stands_for_one_thing():
    seen = {}
    for path in SOURCES:
        seen.setdefault(path.stem, []).append(name(path))
    repeated = {stem: files for stem, files in seen.items() if len(files) > 1 and stem not in OF_ONE_THING | {"__init__"}}
    assert repeated == {}


@pytest.mark.parametrize("path", [path for path in SOURCES if "fabric" not in path.relative_to(ROOT).parts], ids=name)
def test_kinds_of_fabric_are_told_apart_only_in_their_files(path):
    """Nobody else names a kind but where the union is defined, and where a file's ``kind`` is read."""
    kinds = {kind.__name__ for kind in get_args(FabricSpec)}
    if path.parent == ROOT / "model" / "spec":
        return
    used = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert not used & kinds


def test_a_kind_of_fabric_has_a_file_for_the_models_and_one_for_placement(fabric_spec):
    for level in (model, placement):
        found = type(level.fabric_of(fabric_spec, ChipletSpec()))
        assert issubclass(found, level.Fabric)
        assert found.__module__.startswith(level.__package__)


def reached(graph, starts):
    seen, left = set(starts), list(starts)
    while left:
        for module in graph.find_modules_directly_imported_by(left.pop()) - seen:
            seen.add(module)
            left.append(module)
    return seen


def test_every_module_is_reached_from_a_command_or_the_front_door():
    graph = grimp.build_graph("lightfabric", include_external_packages=False, cache_dir=None)
    kinds = [f"lightfabric.{level}.fabric.{file}" for level in ("model", "placement") for file in _kind_files()]
    commands = {module for module in graph.modules if module.startswith("lightfabric.flows.command.")}
    found = reached(graph, {"lightfabric", "lightfabric.flows.cli", *commands, *kinds})
    packages_of = {module.rpartition(".")[0] for module in graph.modules}
    left = {module for module in graph.modules - found - packages_of if not NO_COMMAND.match(module)}
    assert left == set()


def _kind_files():
    for kind in get_args(FabricSpec):
        yield f"{kind.__module__.rpartition('.')[2]}.{get_args(kind.__annotations__['kind'])[0].replace('-', '_')}"


def sentences(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                first = re.split(r"\.(?:\s|$)", text.partition("\n\n")[0].replace("\n", " "))[0]
                yield getattr(node, "name", "module"), first


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_docstrings_begin_with_a_sentence(path):
    short = {owner: first for owner, first in sentences(path) if len(first.split()) < MIN_WORDS}
    assert short == {}
