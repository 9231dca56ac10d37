"""The package map, and a wheel beside the editable install."""

import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_of_code_is_in_the_package_map():
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    written = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("[!.]*/**/__init__.py")}
    folders = {folder for folder in written if not folder.startswith("build/")}
    door = {"lightfabric": ".src/lightfabric"}
    assert door | {f"lightfabric.{folder}": folder for folder in folders if "/" not in folder} == mapped
    packages = ["lightfabric", *sorted(f"lightfabric.{folder.replace('/', '.')}" for folder in folders)]
    assert packages == PROJECT["tool"]["setuptools"]["packages"]


def test_the_citation_is_of_this_version():
    assert f"\nversion: {PROJECT['project']['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {PROJECT['project']['version']} - " in (ROOT / "CHANGELOG.md").read_text()


def test_type_checkers_find_every_folder():
    door = ROOT / ".src" / "lightfabric"
    links = {path.name: path.resolve() for path in door.iterdir() if path.is_symlink()}
    assert links == {name: ROOT / name for name in ("flows", "model", "placement", "rtl", "sim")}


@pytest.mark.slow
def test_a_wheel_behaves_as_the_editable_install(tmp_path):
    source = tmp_path / "source"  # a build leaves its traces where it ran
    traces = shutil.ignore_patterns(".git", ".venv", "*cache*", ".hypothesis", "build", "*.egg-info", "lightfabric-out")
    shutil.copytree(ROOT, source, symlinks=True, ignore=traces)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(build, check=True, timeout=300)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = tmp_path.glob("lightfabric-*.whl")
    licence = next(name for name in ZipFile(wheel).namelist() if name.endswith("/LICENSE"))
    assert ZipFile(wheel).read(licence) == (ROOT / "LICENSE").read_bytes()
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, timeout=300)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True, text=True
    ).stdout.strip()
    # The dependencies of this environment, without its editable lightfabric.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    commands = (python.with_name("lightfabric"), Path(sys.executable).with_name("lightfabric"))
    job = ["place", source / "examples" / "small.toml", "--gpus", "16", "--json"]
    wheels, editables = (
        json.loads(subprocess.run([command, *job], check=True, capture_output=True, cwd=tmp_path, timeout=300).stdout)
        for command in commands
    )
    # The example that is in the package.
    subprocess.run([commands[0], "verilog", "switch", "-o", tmp_path / "switch.v"], check=True, timeout=300)
    where = subprocess.run(
        [python, "-c", "import lightfabric.flows as f; print(f.__file__)"], check=True, capture_output=True, text=True
    ).stdout
    assert str(tmp_path) in where
    assert wheels == editables
