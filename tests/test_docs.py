"""Examples in docstrings and pages run, and the pages name what is there and all that is there."""

import doctest
import importlib.util
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from lightfabric.flows import cli
from lightfabric.flows.format.spec_file import load_spec, load_variants

ROOT = Path(__file__).parent.parent
FOLDERS = ("flows", "model", "placement", "rtl", "sim")
MODULES = [
    module.name
    for folder in FOLDERS
    for module in pkgutil.walk_packages([str(ROOT / folder)], f"lightfabric.{folder}.")
    if not module.name.startswith("lightfabric.sim.cocotb.")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    assert doctest.testmod(importlib.import_module(name), verbose=False).failed == 0


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
def test_the_example_of_the_readme_runs(block, capsys):
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


def site():
    """The script that makes the pages of commands and fields."""
    found = importlib.util.spec_from_file_location("conf", ROOT / "docs" / "conf.py")
    conf = importlib.util.module_from_spec(found)
    found.loader.exec_module(conf)
    return conf


def sections(lines):
    """Heading to the first words in code style of its table's rows; no heading is there twice."""
    parts = re.split(r"^## ", "\n".join(lines), flags=re.MULTILINE)[1:]
    assert len({part.partition("\n")[0] for part in parts}) == len(parts)
    return {part.partition("\n")[0]: set(re.findall(r"^\| `([^ `]+)", part, re.MULTILINE)) for part in parts}


def test_the_site_and_the_readme_have_every_command_and_the_site_every_option():
    documented = sections(site().commands())
    files = {path.stem for path in (ROOT / "flows" / "command").glob("[!_]*.py")}
    readme = (ROOT / "README.md").read_text()
    assert documented.keys() == files == set(re.findall(r"^\| `lightfabric (\w+)", readme, re.MULTILINE))
    for name, rows in documented.items():
        main = importlib.import_module(f"lightfabric.flows.command.{name}").main
        assert len(rows) == len(inspect.signature(main).parameters), name


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_the_site_has_every_field_of_the_spec(example):
    documented = set().union(*sections(site().spec()).values())

    def keys(value):
        if is_dataclass(value):
            value = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list | tuple) else set()

    assert keys(load_variants(example)[0].spec) <= documented
    tables = tomllib.loads(example.read_text())
    # The keys of a sweep are paths, which loading its variants has followed.
    tables.pop("sweep", None)
    assert keys(tables) - {"preset"} <= documented


def test_the_map_of_the_readme_names_every_folder_of_code():
    linked = re.findall(r"\]\(([\w/]+?)/?\)", (ROOT / "README.md").read_text().partition("## Map")[2])
    assert {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("[!.]*/**/__init__.py")} <= set(linked)


def test_every_local_link_of_the_pages_leads_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^):#]+)(?:#[\w-]+)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def test_every_file_and_module_that_a_page_names_is_there():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for path in re.findall(r"`((?:docs|flows|model|placement|rtl|sim|tests)/[\w/]+\.\w+)`", page.read_text()):
            assert "NAME" in path or (ROOT / path).exists(), (page.name, path)


@pytest.mark.parametrize(
    "command", re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "add-a-block.md").read_text(), re.DOTALL)[-1].splitlines()
)
def test_the_commands_that_end_the_page_of_a_block_work(command, tmp_path):
    program, *arguments = shlex.split(command)
    done = subprocess.run([Path(sys.executable).with_name(program), *arguments], cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0


def test_the_command_of_the_page_works(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add-a-command.md").read_text(), re.DOTALL)
    (tmp_path / "reach.py").write_text(block)
    monkeypatch.setattr("lightfabric.flows.command.__path__", [str(tmp_path)])
    monkeypatch.setitem(cli.COMMANDS, "reach", "How far a chiplet reaches.")
    cli.load_command("reach")([], standalone_mode=False)
    assert capsys.readouterr().out == f"{load_spec(None).chiplet.reach_m:g} m\n"
