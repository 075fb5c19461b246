"""What every benchmark's result says of itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pepr_mlops.hardware import describe, resolve_device


def machine() -> dict[str, Any]:
    """The command, the hardware and the versions, for the head of a result."""
    tags = describe(resolve_device("auto"))
    arguments = [Path(a).name if "/" in a else a for a in sys.argv[1:]]
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments]),
        **{key.removeprefix("pepr."): value for key, value in tags.items()},
    }


def write(result: dict[str, Any], out: Path | None) -> None:
    """Print the result as JSON and keep it in `out`."""
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
