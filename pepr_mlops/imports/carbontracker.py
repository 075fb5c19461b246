"""carbontracker's logs: a finished run for each pair of its two files.

Only its actual consumption is read, never the predicted one. carbontracker multiplies that energy
by a PUE, which it states; here energy is that of the machine and the PUE stands apart, as in our
own runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pepr_mlops.errors import WrongUse
from pepr_mlops.imports.files import FinishedRun, number_of, params_of, power_doubt
from pepr_mlops.imports.units import convert
from pepr_mlops.names import LOST

SOURCE = "carbontracker"
_SUFFIX, _OUTPUT = "_carbontracker.log", "_carbontracker_output.log"
# The names of logs: a prefix if one was chosen, the process, a number and the time.
_NAME = re.compile(r"(?:(?P<prefix>.+)_)?\d+(?:\.\d+)?_\d{4}-\d\d-\d\dT\d{6}Z")
_ACTUAL = re.compile(
    r"Actual consumption[^\n]*:\s+Time:\s+\S+\s+Energy:\s+(\S+) kWh\s+CO2eq:\s+(\S+) g\b"
)
_PREDICTED = re.compile(r"Predicted consumption for (\d+) epoch")
_PUE = re.compile(r"multiplied by a PUE coefficient of ([\d.]+\d)")
_VERSION = re.compile(r"- carbontracker version (\S+)")
_FOUND = re.compile(r"The following components were found:(.*)")
_DEVICES = re.compile(r" (\w+) with device\(s\) (.*?)\.(?= |$)")
_DURATION = re.compile(r"- Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
# Of many devices NumPy breaks the line.
_POWER = re.compile(r"- Average power usage \(W\) for (\w+): (\[[^\]]*\]|.+)")
_PLACE = re.compile(r"at detected location: (.+): \[")
_INTERRUPTED = "Training was interrupted"
_RAPL = re.compile(r"(cpu|core|uncore|dram|psys|package)(-\d+)?(:\d+)*")  # names of its counters
_ROUNDED_S = 0.01  # of each duration
_SAME = 1e-3  # relative difference of sums of rounded numbers


@dataclass(frozen=True)
class _Log:
    """What the two files of a run say: the epochs' durations in s and powers in W by component, the
    names of its devices, and the actual energy in kWh with its CO2e in g, both with the PUE."""

    name: str
    texts: str
    durations: tuple[float, ...]
    powers: Mapping[str, tuple[float | None, ...]]
    devices: Mapping[str, tuple[str, ...]]
    pue: float
    energy_kwh: float | None
    gco2e: float | None
    planned: int | None

    @property
    def time_s(self) -> float:
        return sum(self.durations)

    @property
    def interrupted(self) -> bool:
        return _INTERRUPTED in self.texts

    @property
    def epochs(self) -> int:
        return len(self.durations)

    @property
    def in_part(self) -> bool:
        """Whether training continued after the last epoch that was monitored."""
        return not self.interrupted and self.planned is not None and self.epochs < self.planned

    @property
    def unread(self) -> list[str]:
        """The components that were found and had no power in any epoch."""
        return [part for part in self.devices if not any(self.powers.get(part, ()))]

    def first(self, pattern: re.Pattern[str]) -> str | None:
        """What the pattern finds first."""
        match = pattern.search(self.texts)
        return None if match is None else match[1]


def read(
    folder: Path, experiment: str, given: Mapping[str, str]
) -> tuple[list[FinishedRun], list[str]]:
    """A run for each log in `folder` with an actual consumption, and notes on the others.

    `given` are parameters of all runs; without `model` it is the prefix of the log's name. Raises
    `WrongUse` for a folder without such logs, a log of other content and one without a name.
    """
    paths = sorted(folder.glob(f"*{_SUFFIX}"))
    if not paths:
        raise WrongUse(f"import: there is no log of {SOURCE} (*{_SUFFIX}) in {folder}")
    params, runs, notes = params_of(given, "import"), list[FinishedRun](), list[str]()
    for path in paths:
        log = _log(path)
        if log is None:
            notes.append(f"{path.name} is left out: it has no actual consumption of the training")
        else:
            runs.append(_run(log, path, experiment, params))
    if not runs:
        raise WrongUse(
            f"import: no log in {folder} has an actual consumption; {SOURCE} writes it after the "
            "last epoch that it monitors"
        )
    return runs, notes


def _log(path: Path) -> _Log | None:
    """The log at `path`, None without an actual consumption. Raises `WrongUse`."""
    output = path.with_name(path.name.removesuffix(_SUFFIX) + _OUTPUT)
    text, found = _text(path), _text(output) if output.exists() else ""
    actual = _ACTUAL.search(found)
    if actual is None:
        return None
    durations = [60 * (60 * int(h) + int(m)) + float(s) for h, m, s in _DURATION.findall(text)]
    pue, planned = _PUE.search(text), _PREDICTED.search(found)
    if pue is None or not durations:
        what = "the PUE that its energy contains" if pue is None else "the duration of an epoch"
        raise WrongUse(f"import: {path} does not state {what}; it is no log of {SOURCE}")
    energy_kwh, gco2e = number_of(actual[1]), number_of(actual[2])
    if energy_kwh is None or not 0 <= energy_kwh < 1e9:
        raise WrongUse(f"import: the actual energy in {output} is {actual[1]!r}, not a number")
    found_line = _FOUND.search(text)
    return _Log(
        name=path.name.removesuffix(_SUFFIX),
        texts=text,
        durations=tuple(durations),
        powers=_powers(text),
        devices={
            name.lower(): tuple(words.split(", "))
            for name, words in _DEVICES.findall(found_line[1] if found_line else "")
        },
        pue=float(pue[1]),
        energy_kwh=energy_kwh or None,
        gco2e=gco2e if gco2e is not None and gco2e > 0 else None,
        planned=int(planned[1]) if planned else None,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WrongUse(f"import: {path} is not UTF-8 ({error.reason})") from error
    except OSError as error:
        raise WrongUse(f"import: {path} cannot be read ({error.strerror})") from error


def _powers(text: str) -> dict[str, tuple[float | None, ...]]:
    """The mean power of each epoch by component, of several devices the sum where it is given for
    each; None where there is none."""
    found: dict[str, list[float | None]] = {}
    for name, words in _POWER.findall(text):
        parts = [number_of(word) for word in words.strip("[] ").split()]
        known = [part for part in parts if part is not None]
        found.setdefault(name, []).append(sum(known) if len(known) == len(parts) else None)
    return {name: tuple(values) for name, values in found.items()}


def _run(log: _Log, path: Path, experiment: str, params: Mapping[str, str]) -> FinishedRun:
    match = _NAME.fullmatch(log.name)
    model = params.get("model") or (match["prefix"] if match else None)
    if model is None:
        raise WrongUse(
            f"import: {path} names no model, since {SOURCE} had no log_file_prefix; name it with "
            "--model"
        )
    parts = {part: wh for part in ("gpu", "cpu") if (wh := _part_wh(log, part)) is not None}
    sources = {p: _source(p, names) for p, names in log.devices.items() if p not in log.unread}
    source = "estimated" if "estimated" in sources.values() else "imported"
    missing = [f"{part}: {SOURCE} counted none" for part in log.unread]
    total_wh = None if log.energy_kwh is None else convert(log.energy_kwh, "kWh", "Wh") / log.pue
    values = {"energy/train_wh": total_wh, "carbon/train_gco2e": log.gco2e}
    values |= {f"energy/train_{part}_wh": wh for part, wh in parts.items()}
    if total_wh is None:
        source, missing = "none", [f"{SOURCE} counted no energy"]
    elif lost := list(_lost(log)):
        source, missing, total_wh, values = LOST, lost, None, {}
    if not log.in_part:
        values["time/train_s"] = log.time_s
    epochs = log.planned if log.in_part else log.epochs
    tags = {
        "pepr.experiment": experiment,
        "pepr.energy_source": source,
        "pepr.energy_components": ",".join(f"{part}={how}" for part, how in sources.items()),
        "pepr.energy_method": f"{SOURCE} {log.first(_VERSION) or ''}".strip(),
        "pepr.energy_missing": "; ".join(missing),
        "pepr.import_doubt": "; ".join(_doubts(log, total_wh, parts)),
        "pepr.pue": f"{log.pue:g}",
        "pepr.gpu": ", ".join(log.devices.get("gpu", ())),
        "pepr.gpu_count": str(len(log.devices.get("gpu", ()))),
        "pepr.cpu": ", ".join(log.devices.get("cpu", ())),
        **_carbon(log),
    }
    tags["pepr.hardware"] = tags["pepr.gpu"] or tags["pepr.cpu"]
    return FinishedRun(
        experiment=experiment,
        name=model,
        source=SOURCE,
        key=log.name,
        params={**params, "epochs": str(epochs), "model": model},
        tags={tag: text for tag, text in tags.items() if text},
        points=tuple((name, v, log.epochs) for name, v in values.items() if v is not None),
    )


def _lost(log: _Log) -> Iterator[str]:
    """Why the actual energy is not that of the training: without that of what trains, the GPU if
    there is one, it is known for a part only."""
    if log.in_part:
        yield f"{SOURCE} monitored {log.epochs} of {log.planned} epochs"
    for part in ({"gpu"} & log.devices.keys() or {"cpu"}) & {*log.unread}:
        yield f"{part}: {SOURCE} counted none"
    for part, names in log.devices.items():
        if len(names) > 1 and part not in log.unread and not _by_device(log, part):
            yield f"{SOURCE} counted the mean of its {len(names)} {part.upper()}s, not their sum"


def _part_wh(log: _Log, part: str) -> float | None:
    """The energy of a component in all epochs, None if it is not known of one."""
    powers = log.powers.get(part, ())
    known = [watts for watts in powers if watts is not None]
    if len(known) != log.epochs or not sum(known):
        return None
    return sum(convert(w * s, "J", "Wh") for w, s in zip(known, log.durations, strict=True))


def _source(part: str, devices: tuple[str, ...]) -> str:
    """Of a CPU that carbontracker names by its model it has a share of the design power only."""
    read_off = part == "gpu" or all(_RAPL.fullmatch(name) for name in devices)
    return "imported" if read_off else "estimated"


def _carbon(log: _Log) -> dict[str, str]:
    if log.gco2e is None or log.energy_kwh is None:
        return {}
    place = log.first(_PLACE) or "Unknown"
    named = "place not known" if place == "Unknown" else place
    return {
        "pepr.carbon_intensity_g_per_kwh": f"{log.gco2e / log.energy_kwh:.6g}",
        "pepr.carbon_source": f"{named}, by {SOURCE}",
    }


def _doubts(log: _Log, total_wh: float | None, parts: Mapping[str, float]) -> Iterator[str]:
    if log.interrupted:
        planned = f" of {log.planned}" if log.planned else ""
        yield f"training was interrupted after {log.epochs}{planned} epochs"
    for part, powers in log.powers.items():
        if len(powers) > 1 and len(set(powers)) == 1 and powers[0]:
            yield f"the power of its {part.upper()} is {powers[0]:g} W in every epoch: a constant"
    total, error = sum(parts.values()), _SAME + _ROUNDED_S * log.epochs / max(log.time_s, 1e-9)
    if total_wh and len(parts) == len(log.devices) and abs(total / total_wh - 1) > error:
        yield f"its parts add up to {total:.4g} Wh and its total is {total_wh:.4g} Wh"
    if (doubt := power_doubt(total_wh, log.time_s)) is not None:
        yield doubt


def _by_device(log: _Log, part: str) -> bool:
    """Whether the log has the power of each device of a component."""
    texts = [words for name, words in _POWER.findall(log.texts) if name == part]
    return any(len(words.split()) > 1 for words in texts)
