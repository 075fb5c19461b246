"""How many odd inputs were tried on each part that reads what others wrote, and what was found?

    python benchmarks/fuzz.py --examples 2000

The tests of tests/fuzz once more, with new inputs each time and more of them. An input counts where
the work either gave what the test demands of it or was refused in one line.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from pathlib import Path
from typing import Any

import click
import pytest
from common import machine, write

ROOT = Path(__file__).parents[1]
_TEST = re.compile(r"^tests/fuzz/(?P<file>test_fuzz_\w+)\.py::(?P<test>\w+):$")
_COUNTS = re.compile(r"- (?P<passing>\d+) passing.*?, (?P<failing>\d+) failing")


@click.command()
@click.option("--examples", default=2000, help="inputs of a test, a part of it of the slow ones")
@click.option("--out", type=click.Path(path_type=Path))
def main(examples: int, out: Path | None) -> None:
    started = time.perf_counter()
    os.environ["PEPR_FUZZ_EXAMPLES"] = str(examples)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        pytest.main(
            [
                *(f"--rootdir={ROOT}", "-n", "0", "-W", "ignore", str(ROOT / "tests" / "fuzz")),
                *("--hypothesis-profile", "long", "--hypothesis-show-statistics"),
            ]
        )
    if not (found := _counts(printed.getvalue())):
        raise click.ClickException(printed.getvalue()[-2000:])
    write(
        {
            **machine(),
            "wall_s": round(time.perf_counter() - started),
            "inputs": sum(t["inputs"] for t in found),
            "failing": sum(t["failing"] for t in found),
            "tests": found,
        },
        out,
    )


def _counts(text: str) -> list[dict[str, Any]]:
    """Inputs of each test as Hypothesis counts them, those of every phase."""
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        if test := _TEST.match(line.strip()):
            found.append({**test.groupdict(), "inputs": 0, "failing": 0})
        elif found and (counts := _COUNTS.search(line)):
            failing = int(counts["failing"])
            found[-1]["inputs"] += int(counts["passing"]) + failing
            found[-1]["failing"] += failing
    return found


if __name__ == "__main__":
    main()
