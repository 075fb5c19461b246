"""What benchmarks have in common: what a result says of itself, and a server to log to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pepr_mlops.costs.device import Device


def machine() -> dict[str, Any]:
    """The command, the hardware and the versions, for the head of a result."""
    tags = Device.resolve("auto").describe()
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


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of an MLflow server over `mlflow.db` in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words],
        cwd=folder,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # ten processes more
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.3)
        else:
            raise RuntimeError(f"no MLflow server came up at {address}")
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
