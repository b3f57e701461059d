"""What must hold for the whole repository and no linter can see."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
OUR_OWN = {*PACKAGES, "sop", "tests", "benchmarks"}
COMES_WITH = {
    "botocore": "s3fs",
    "dotenv": "pydantic-settings",
    "fsspec": "s3fs",
    "gymnasium": "metaworld",
    "mujoco": "metaworld",
    "urllib3": "clickhouse-connect",
}
"""Modules that we import for what another package promises: its errors, its interface."""
LONGEST_MODULE = 400


def tracked(*patterns: str) -> list[Path]:
    """Files that git has, or would take with the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


MODULES = tracked("*.py")


def relative(path: Path) -> str:
    """As a reader of a failure wants it."""
    return path.relative_to(ROOT).as_posix()


def found(pattern: str, files: list[Path]) -> list[str]:
    """Lines that match, as `file:line`."""
    return [
        f"{relative(path)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if re.search(pattern, line)
    ]


def imports() -> list[tuple[str, str]]:
    """Every file, and each module that it imports."""
    seen = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                seen += [(relative(path), alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                seen.append((relative(path), node.module))
    return seen


@pytest.mark.parametrize("name", [*PACKAGES, "sop", "tests"])
def test_a_top_level_package_is_the_folder_of_this_repository(name: str) -> None:
    """Their names are common ones: an installed package of the same name must not hide ours."""
    origin = importlib.import_module(name).__file__
    assert origin is not None, f"{name} lacks its __init__.py"
    assert Path(origin).resolve().is_relative_to(ROOT.resolve())


def test_every_folder_with_modules_is_a_package_at_every_level() -> None:
    """Else `tests/schemas` shadows `schemas`, and mypy skips what it does not find."""
    folders = {folder for path in MODULES for folder in path.relative_to(ROOT).parents if folder != Path()}
    tops = {*PACKAGES, "tests"}
    missing = [f.as_posix() for f in folders if f.parts[0] in tops and not (ROOT / f / "__init__.py").is_file()]
    assert missing == []


def test_no_module_is_longer_than_anyone_reads() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def test_every_module_of_the_system_begins_by_saying_what_it_is() -> None:
    of_the_system = [path for path in MODULES if path.relative_to(ROOT).parts[0] in {*PACKAGES, "sop.py"}]
    silent = [relative(path) for path in of_the_system if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_every_name_that_a_module_exports_exists() -> None:
    """`__all__` is a list of strings: nothing else notices a name that is gone."""
    missing = []
    for path in MODULES:
        top = path.relative_to(ROOT).parts[0]
        if top not in PACKAGES or "__all__" not in path.read_text():
            continue
        module = importlib.import_module(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        )
        missing += [f"{module.__name__}.{name}" for name in module.__all__ if not hasattr(module, name)]
    assert missing == []


def test_nothing_can_load_a_pickle() -> None:
    """Weights and events come over the network, and a pickle is a program."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    assert [place for place in imports() if place[1].split(".")[0] in forbidden] == []
    assert (
        found(r"\btorch\.(load|save)\(|allow_pickle\s*=\s*True|weights_only\s*=\s*False", not_this(MODULES)) == []
    )


def test_no_absolute_path_of_somebodys_machine_is_written_down() -> None:
    text = not_this([path for path in tracked() if path.suffix not in {".png", ".gif", ".jpg", ".parquet"}])
    assert text
    assert found(r"(?<![\w.])/(home|root|Users|work|workspace|mnt)/\w", text) == []


def test_requirements_are_pinned_hashed_and_name_no_registry() -> None:
    files = tracked("requirements/*.txt")
    assert {path.name for path in files} >= {"base.txt", "dev.txt"}
    assert found(r"(?i)https?://|--(extra-)?index-url|--find-links|--trusted-host|@ file:|-e ", files) == []
    for path in files:
        pinned = re.findall(r"(?m)^([\w.\[\]-]+)==([^\s\\;]+)([^\n]*\n(?:[ \t]+[^\n]*\n?)*)", path.read_text())
        entries = re.findall(r"(?m)^[\w.\[\]-]+.*$", path.read_text())
        assert len(pinned) == len(entries) > 0, path.name
        assert [name for name, _, rest in pinned if "--hash=sha256:" not in rest] == [], path.name


def test_whatever_is_imported_is_declared_and_pinned() -> None:
    """A package that comes with another one by chance goes when that one changes its mind."""
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {_canonical(re.split(r"[\[<>=]", requirement)[0]) for group in groups for requirement in group}
    lines = (ROOT / "requirements/dev.txt").read_text().splitlines()
    pinned = {_canonical(re.split(r"[\[=]", line)[0]) for line in lines if "==" in line}
    assert declared <= pinned, "run `make lock`"
    assert set(COMES_WITH.values()) <= declared

    providers = packages_distributions()
    undeclared = set()
    for place, module in imports():
        name = module.split(".")[0]
        if name in {*sys.stdlib_module_names, *COMES_WITH, *OUR_OWN}:
            continue
        if not declared & {_canonical(provider) for provider in providers.get(name, [])}:
            undeclared.add((place, name))
    assert undeclared == set()


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def not_this(files: list[Path]) -> list[Path]:
    """Without the file that spells out what is forbidden."""
    return [path for path in files if path != Path(__file__)]
