"""Every Python block of the README and every docstring example runs."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

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
