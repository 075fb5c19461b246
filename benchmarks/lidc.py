"""What does building LIDC-IDRI take, and does its memory stay flat over all scans?

    python benchmarks/lidc.py

Makes a synthetic copy of the collection (DICOM files with planted intensities at the real outlines,
deflated; of each scan only the slices with an outline) and builds the data set from the first
quarter, half and all of its scans. The real collection's files are 0.5 MB each, not 2 kB, and ten
to twenty times as many.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import psutil
from common import machine, write
from tqdm import tqdm

from pepr_mlops.data.lidc_build import Settings, build, nodules

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import collection  # the tests' maker of synthetic scans


@click.command()
@click.option("--scans", type=int, help="the first so many of those with a nodule [default: all]")
@click.option("--out", type=click.Path(path_type=Path))
def main(scans: int | None, out: Path | None) -> None:
    every = [scan for scan in collection.scans(nodules.installed()) if scan.outlines][:scans]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "LIDC-IDRI")
        results = []
        before = 0
        for share in (0.25, 0.5, 1.0):
            until = round(share * len(every))
            files = make(every[before:until], root)
            before = until
            results.append({"new_files": files, **measured(root, Path(folder, str(share)))})
        write({**machine(), "builds": results}, out)


def make(scans: Sequence[collection.Scan], root: Path) -> int:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        made = pool.map(_make, [(scan, root) for scan in scans])
        return sum(tqdm(made, total=len(scans), desc="make", unit="scan"))


def _make(task: tuple[collection.Scan, Path]) -> int:
    return len(collection.write(*task, around=0))


def measured(root: Path, out: Path) -> dict[str, Any]:
    """Build from what is there; time, and the greatest memory of each kind of process."""
    peaks = {"main": 0, "worker": 0}
    ended = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not ended.wait(0.1):
            peaks["main"] = max(peaks["main"], me.memory_info().rss)
            for child in me.children():
                try:
                    peaks["worker"] = max(peaks["worker"], child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        built = build(Settings(root, out, max_missing=0.999), tqdm)
    finally:
        ended.set()
        watcher.join()
    made = built.manifest
    return {
        "scans": int(made["series"].nunique()),
        "patches": len(made),
        "patients_in_two_splits": int((made.groupby("patient")["split"].nunique() > 1).sum()),
        "wall_s": time.perf_counter() - started,
        "main_peak_gb": peaks["main"] / 1e9,
        "worker_peak_gb": peaks["worker"] / 1e9,
        "file_gb": os.path.getsize(built.path) / 1e9,
        "images_gb": len(made) * 256 * 256 / 1e9,
    }


if __name__ == "__main__":
    main()
