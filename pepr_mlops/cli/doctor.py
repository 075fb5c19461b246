"""`pepr doctor`: what works on this machine and with this server, and how to fix what does not."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

from pepr_mlops.cli.options import tracking_uri
from pepr_mlops.cli.output import as_json, say
from pepr_mlops.costs.doctor import Check
from pepr_mlops.errors import PeprError
from pepr_mlops.text import without_password

_MARKS = {"ok": "ok", "note": "--", "fails": "!!"}
_SCARCE_GB = 5.0  # a few checkpoints and the weights of a large model take more


@click.command
@tracking_uri
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def command(tracking_uri: str | None, form: str) -> int:
    """Check this machine and the tracking server: devices, energy sensors, whether runs and
    artifacts can be written, caches, disks and versions.

    It logs one short run to the server and deletes it. The output shows no password: attach it to a
    bug report. The exit status is 1 if something fails.

    \b
    Examples:
      pepr doctor
      pepr doctor --tracking-uri http://tracking.lab:5000
      pepr doctor --format json > doctor.json
    """
    from pepr_mlops.costs.device import versions

    checks = []
    for check in _checks(tracking_uri):
        remedy = without_password(check.remedy or "")
        check = check._replace(found=without_password(check.found), remedy=remedy or None)
        checks.append(check)
        if form == "text":
            say(f"{_MARKS[check.state]}  {check.part:8} {check.what}: {check.found}")
            if remedy:
                say(f"{'':13}-> {remedy}")
    if form == "json":
        say(as_json({"versions": versions(), "checks": [check._asdict() for check in checks]}))
    else:
        say("(ok: works; --: works with less; !!: does not work)")
        say("versions   " + ", ".join(f"{name} {text}" for name, text in versions().items()))
    return int(any(check.state == "fails" for check in checks))


def _checks(tracking_uri: str | None) -> Iterator[Check]:
    from pepr_mlops.costs import doctor
    from pepr_mlops.costs.device import Device
    from pepr_mlops.tracking.doctor import waiting

    yield from doctor.machine()
    yield from doctor.energy(Device.resolve("auto"))
    yield from _tracking(tracking_uri)
    yield from waiting()
    yield from _disks()


def _tracking(tracking_uri: str | None) -> Iterator[Check]:
    from pepr_mlops.text import address
    from pepr_mlops.tracking import doctor, reach, read
    from pepr_mlops.tracking.server import resolved, sqlite_path

    uri = resolved(tracking_uri)
    path = sqlite_path(uri)
    if path is not None and not Path(path).exists():
        folder = Path(path).absolute().parent
        if os.access(folder, os.W_OK):
            text = f"{address(uri)} does not exist yet; the first job creates it"
            yield Check("tracking", "store", "note", text)
        else:
            text = f"{address(uri)} cannot be created: {folder} is missing or cannot be written"
            yield Check("tracking", "store", "fails", text, "create the folder, or name another")
        return
    try:
        reach(uri)
        yield Check("tracking", "server", "ok", f"{address(uri)}: {read.store_version(uri)}")
    except PeprError as error:
        yield Check("tracking", "server", "fails", doctor.plain(error))
        return
    yield from doctor.checks(uri)


def _disks() -> Iterator[Check]:
    """Size of each cache, and free space for caches, temporary files and the working folder."""
    folders = _folders()
    for name, folder in folders.items():
        yield Check("caches", name, "ok", f"{_size_mb(folder):,.1f} MB in {folder}")
    places = {**folders, "working folder": Path.cwd(), "temporary": Path(tempfile.gettempdir())}
    for names, free_gb in _free_gb(places).items():
        text = f"{free_gb:.1f} GB ({names})"
        if free_gb < _SCARCE_GB:
            remedy = "make room, or move caches elsewhere (HF_HOME, XDG_CACHE_HOME)"
            yield Check("disk", "free", "note", text, remedy)
        else:
            yield Check("disk", "free", "ok", text)


def _folders() -> dict[str, Path]:
    from huggingface_hub import constants

    from pepr_mlops.data.medmnist import folder_of
    from pepr_mlops.files import cache_folder
    from pepr_mlops.sweep.sweep import default_checkpoints
    from pepr_mlops.tracking import journal

    return {
        "pretrained weights": Path(constants.HF_HUB_CACHE),
        "MedMNIST": folder_of(None),
        "checkpoints": default_checkpoints(),
        "answers and digests": cache_folder(),
        "journals": journal.home(),
    }


def _size_mb(folder: Path) -> float:
    """Size of the files below a folder, which need not exist, in 1e6 bytes."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # running jobs delete theirs
                found = os.lstat(os.path.join(parent, name))
                size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size / 1e6


def _free_gb(places: dict[str, Path]) -> dict[str, float]:
    """Free space in GB of each disk, by the names of the places that are on it."""
    disks: dict[int, tuple[list[str], float]] = {}
    for name, place in places.items():
        existing = next(path for path in (place, *place.parents) if path.exists())
        free_gb = shutil.disk_usage(existing).free / 1e9
        disks.setdefault(existing.stat().st_dev, ([], free_gb))[0].append(name)
    return {", ".join(names): free_gb for names, free_gb in disks.values()}
