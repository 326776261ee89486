"""The rules of the house that no linter knows."""

from __future__ import annotations

import re
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
        if "bench" not in path.parts and path.name != "test_house.py"
        and re.search(r"(time\.sleep|asyncio\.sleep|wait_for_timeout)\((?!0\))", path.read_text())
    ]  # fmt: skip

    assert sleeping == []
