"""A Chromium for the browser tests: find one, or get one, or say in one sentence what to do.

`python -m tests.browser` prints the executable's path.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
LAUNCH_ARGS = [
    *(["--no-sandbox"] if IS_ROOT else []),
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# noto-core writes Arabic, Cyrillic, Devanagari and most others, zenhei Han, Kana and Hangul: together 20 MB
# of download where the Noto fonts for the latter alone would be 57.
_PACKAGES = ("chromium", "libatomic1", "fonts-noto-core", "fonts-wqy-zenhei")
_REMEDY = (
    "No Chromium was found and none could be installed. Install Chromium or Google Chrome "
    "(Debian, Ubuntu: apt-get install chromium libatomic1), or name one with BROWSER_PATH=/path/to/chrome."
)


class NoBrowser(RuntimeError):
    """There is no browser to test with; the message says what to do."""


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome: $BROWSER_PATH, the PATH, then Playwright's own."""
    named = os.environ.get("BROWSER_PATH")
    if named:
        if not Path(named).is_file():
            raise NoBrowser(f"BROWSER_PATH names {named}, but there is no such file.")
        return named
    for name in _NAMES:
        if (found := shutil.which(name)) and _try([found, "--version"]):  # some are stubs of a missing snap
            return found
    return _playwright_browser()


def install_browser() -> str:
    """Find a browser or install one: Playwright's download, else apt as root. Raises NoBrowser."""
    if (found := find_browser()) is not None and _driver_runs():
        return found
    if found is None:
        print("No Chromium here yet: trying Playwright's own …", file=sys.stderr)
        _try([sys.executable, "-m", "playwright", "install", "chromium"])
    if (found is None and _playwright_browser() is None) or not _driver_runs():
        _apt_install(_PACKAGES if find_browser() is None else ("libatomic1",))
    found = find_browser()
    if found is None:
        raise NoBrowser(_REMEDY)
    if not _driver_runs():
        raise NoBrowser(
            "Playwright needs the library libatomic1 (Debian, Ubuntu: apt-get install libatomic1)."
        )
    return found


def _apt_install(packages: tuple[str, ...]) -> None:
    if not IS_ROOT or shutil.which("apt-get") is None:
        return
    print(f"Installing {' '.join(packages)} with apt …", file=sys.stderr)
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    _try(["apt-get", "update", "-qq"], environ)
    _try(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], environ)


def _try(command: list[str], environ: dict[str, str] | None = None) -> bool:
    finished = subprocess.run(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return finished.returncode == 0


def _driver_runs() -> bool:
    """Playwright's driver is a node that wants libatomic; looking for that is quicker than starting node."""
    return ctypes.util.find_library("atomic") is not None or _try(
        [sys.executable, "-m", "playwright", "--version"]
    )


def _playwright_browser() -> str | None:
    if not _driver_runs():
        return None
    script = "from playwright.sync_api import sync_playwright as p\nwith p() as q: print(q.chromium.executable_path)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    path = found.stdout.strip()
    return path if path and Path(path).is_file() else None


def main() -> int:
    """Print the browser's path, installing one if need be."""
    try:
        print(f"Browser: {install_browser()}")
    except NoBrowser as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
