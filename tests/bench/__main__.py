"""Run every measurement and print a table; ``--markdown`` for README's."""

from __future__ import annotations

import asyncio
import sys

from tests.bench import http, machine, pages, recording


def main() -> int:
    """Measure one after the other: two cores are enough for one at a time."""
    rows = [*asyncio.run(recording.measure()), *asyncio.run(http.measure())]
    rows += pages.measure()
    if "--markdown" in sys.argv:
        print("| what | figure |\n|---|---|")
        for what, figure in rows:
            print(f"| {what} | {figure} |")
    else:
        for what, figure in rows:
            print(f"{what:<75} {figure}")
    print(f"\nMeasured on {machine.describe()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
