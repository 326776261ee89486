"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("domain", "realtime", "notifications", "offline", "ui")


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_the_locks_carry_hashes_and_no_addresses(name: str) -> None:
    lock = (ROOT / name).read_text()

    assert "://" not in lock
    for block in re.split(r"\n(?=\S)", lock):
        if re.match(r"[a-zA-Z0-9]", block):
            assert "--hash=sha256:" in block, block.splitlines()[0]


def test_what_is_tested_is_what_runs() -> None:
    pins = {
        name: set(re.findall(r"^[a-z0-9][^ \\]*==[^ \\]+", (ROOT / name).read_text(), flags=re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    }

    assert pins["requirements.lock"] <= pins["requirements-dev.lock"]


def test_every_dependency_is_locked_and_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)
    runtime, dev = project["project"]["dependencies"], project["dependency-groups"]["dev"]

    for lock, wanted in (("requirements.lock", runtime), ("requirements-dev.lock", runtime + dev)):
        locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / lock).read_text(), flags=re.MULTILINE))
        assert {re.split(r"[\[<>=;! ]", one)[0] for one in wanted} <= locked, lock
    for dependency in runtime + dev:
        assert re.search(rf'"{re.escape(dependency)}", *# \S+', text), dependency


def test_nothing_imports_the_wiring_nor_the_tests() -> None:
    importing = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if _imported(path) & {"main", "tests"}
    ]

    assert importing == []


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_no_file_outgrows_its_reason() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if (lines := path.read_text().count("\n")) > 500
    }

    assert long == {}


def test_tests_wait_for_conditions_and_never_sleep() -> None:
    sleeping = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if "bench" not in path.parts and path.name not in ("test_house.py", "servers.py", "waiting.py")
        and re.search(r"(time\.sleep|asyncio\.sleep|wait_for_timeout)\((?!0\))", path.read_text())
    ]  # fmt: skip

    assert sleeping == []
