"""Run every measurement and print a table; ``--markdown`` for README's."""

from __future__ import annotations

import asyncio
import sys

from tests.bench import fanout, gateway, http, machine, pages, recording, storm


def main() -> int:
    """Measure one after the other: two cores are enough for one at a time."""
    is_markdown = "--markdown" in sys.argv
    rows = [*asyncio.run(recording.measure()), *asyncio.run(http.measure())]
    rows += [*storm.measure(), *pages.measure()]
    if is_markdown:
        print("| what | figure |\n|---|---|")
        for what, figure in rows:
            print(f"| {what} | {figure} |")
    else:
        for what, figure in rows:
            print(f"{what:<75} {figure}")
    sent = fanout.run([gateway.target(), *fanout.peers()], fanout.SCENARIOS)
    print("\nWebSocket fan-out, beside peers (what the scenarios are: docs/bench.md):\n")
    print(fanout.table(sent, is_markdown=is_markdown))
    print(f"\nMeasured on {machine.describe()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
