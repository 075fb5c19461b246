"""What does it take to know a folder of images by what it holds?

    python benchmarks/digest.py

Files of random bytes in DIR/{train,val,test}/CLASS/. The first job reads them all, a further one
only asks the system whether they were touched, and one image that was changed is read again.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from common import machine, write

from pepr_mlops import RunSpec, data


@click.command()
@click.option("--files", default=20_000, show_default=True)
@click.option("--kilobytes", default=50, show_default=True, help="of a file")
@click.option("--repeats", default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(files: int, kilobytes: int, repeats: int, out: Path | None) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEPR_CACHE"] = f"{folder}/cache"
        root = Path(folder, "images")
        for i in range(files):
            split = "train" if i % 10 < 6 else "val" if i % 10 < 8 else "test"
            path = root / split / "ab"[i // 10 % 2] / f"{i:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.bytes(kilobytes * 1000))
        time.sleep(3)  # files that were written just now are read again
        spec = RunSpec(dataset=str(root))
        first_s, first = timed(spec)
        again = [timed(spec) for _ in range(repeats)]
        assert {digest for _, digest in again} == {first}
        path.write_bytes(rng.bytes(kilobytes * 1000))
        changed_s, changed = timed(spec)
        assert changed != first
        further_s = [took_s for took_s, _ in again]
        result = {
            "files": files,
            "gigabytes": files * kilobytes / 1e6,
            "first_s": first_s,
            "further_s": {
                "median": float(np.median(further_s)),
                "low": min(further_s),
                "high": max(further_s),
            },
            "one_changed_s": changed_s,
        }
        write({**machine(), **result}, out)


def timed(spec: RunSpec) -> tuple[float, str]:
    """Seconds, and the digest of the data set."""
    started = time.perf_counter()
    digest = data.identify(spec).data_digest
    return time.perf_counter() - started, digest


if __name__ == "__main__":
    main()
