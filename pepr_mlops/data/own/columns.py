"""What the columns of a table are for: as the user says, or else by their names. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from pepr_mlops.data.own.labels import is_binary
from pepr_mlops.data.own.split_names import split_of
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.names import GROUP_VALUES

_OPTIONS = ("image_column", "label_columns", "patient_column", "split_column", "group_columns")
UNKNOWN = "not known"  # the subgroup of an empty cell

# Names of columns without case and signs. Of several sets the first with a match counts.
_IMAGE = (
    {
        *("image", "images", "imageid", "imagepath", "imagename", "imagefile", "imagefilename"),
        *("imageindex", "img", "imgid", "imgpath", "imgname", "imgfile"),
        *("file", "filename", "filepath", "path", "dicom", "dicomfile", "dicompath", "dcmpath"),
    },
)
_LABELS = (
    {
        *("label", "labels", "class", "classes", "classname", "category", "target", "targets"),
        *("dx", "diagnosis", "diagnoses", "finding", "findings", "findinglabel", "findinglabels"),
    },
)
_PATIENT = (
    {
        *("patient", "patients", "patientid", "patientnumber", "patientno", "subject", "subjectid"),
        *("participant", "participantid", "pid", "mrn"),
    },
    {"case", "caseid", "lesion", "lesionid"},
)
_SPLIT = ({"split", "splits"}, {"set", "partition", "subset", "fold"})
_SEX = {"sex", "gender", "male", "female"}  # never labels by a guess, although often 0 and 1
# Columns whose values may name a person, by their name without case and signs.
_IDENTIFIES = re.compile(
    "^(mrn|pid|dob|ssn|id)$|patient(?!s?(age|sex|gender)$)|subject|birth|address|phone|mail"
    "|accession|name$|uid$"
)
_ID = re.compile(r"(?:[\W_][iI]|[a-z]I)[dD]$")


@dataclass(frozen=True)
class Options:
    """How a table is read: the fields of `RunSpec` of the same names."""

    images: str | None = None
    image_column: str | None = None
    label_columns: str | None = None
    patient_column: str | None = None
    split_column: str | None = None
    group_columns: str | None = None
    uncertain: str = "refuse"
    missing: str = "refuse"


@dataclass(frozen=True)
class Uses:
    """The columns of a table by their use. `notes` are on columns that were passed over."""

    image: str
    labels: tuple[str, ...]
    patient: str | None
    split: str | None
    groups: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def by_use(self) -> dict[str, tuple[str, ...]]:
        """The columns of each use that has any."""
        found = {
            "image": (self.image,),
            "labels": self.labels,
            "patient": (self.patient,) if self.patient is not None else (),
            "split": (self.split,) if self.split is not None else (),
            "groups": self.groups,
        }
        return {use: columns for use, columns in found.items() if columns}

    @property
    def text(self) -> str:
        return "columns: " + "; ".join(
            f"{use}={', '.join(columns)}" for use, columns in self.by_use.items()
        )


def choose(table: pd.DataFrame, options: Options, source: str) -> Uses:
    """The use of each column of the table that is called `source`.

    Raises `WrongUse` for a name that is no column, for several columns that one use could be of,
    and where there is none for the files or the labels.
    """
    columns = _Columns(table, source)
    given = {option: columns.given(option, getattr(options, option)) for option in _OPTIONS}
    image = columns.one("image_column", _IMAGE, given)
    if image is None:
        raise columns.refusal("image_column", "has no column that is called as files of images are")
    patient = columns.one("patient_column", _PATIENT, given)
    split = columns.one("split_column", _split_names(table), given)
    labels = given["label_columns"] or columns.labels()
    groups, notes = columns.groups(given["group_columns"])
    return Uses(image, labels, patient, split, groups, notes)


def further(table: pd.DataFrame, image: str, source: str) -> Uses:
    """As `choose` for a table without labels and splits, whose files are in the column `image`."""
    columns = _Columns(table, source, {image: "image_column"})
    patient = columns.one("patient_column", _PATIENT, {})
    groups, notes = columns.groups(())
    return Uses(image, (), patient, None, groups, notes)


def identifies(name: str) -> bool:
    """Whether the values of a column may name a person, by the column's name."""
    return bool(_IDENTIFIES.search(_letters(name)) or _ID.search(name))


def group(cells: pd.Series) -> pd.Series:
    """The subgroup of each image."""
    return cells.mask(cells == "", UNKNOWN)


@dataclass
class _Columns:
    """The columns of a table, and the options that those in use are for."""

    table: pd.DataFrame
    source: str
    taken: dict[str, str] = field(default_factory=dict)

    def given(self, option: str, text: str | None) -> tuple[str, ...]:
        """The columns that an option names, between commas; none without it."""
        if text is None:
            return ()
        names = [text.strip()]
        if names[0] not in self.table.columns:
            names = [name.strip() for name in text.split(",")]
        if len(names) > 1 and not option.endswith("columns"):
            raise WrongUse(f"{option}: {text!r} is more than one column; give one")
        for name in names:
            if name not in self.table.columns:
                raise self.refusal(option, f"has no column {name!r}", name)
            if name in self.taken:
                raise WrongUse(
                    f"{option}: column {name!r} is in use as {self.taken[name]}; name another"
                )
            self.taken[name] = option
        return tuple(names)

    def one(
        self,
        option: str,
        guesses: Iterable[Collection[str]],
        given: Mapping[str, tuple[str, ...]],
    ) -> str | None:
        """The column that is given for an option or, without it, one with a name of `guesses`."""
        names = given.get(option) or self._guessed(option, guesses)
        return names[0] if names else None

    def _guessed(self, option: str, guesses: Iterable[Collection[str]]) -> tuple[str, ...]:
        for known in guesses:
            found = [name for name in self._free() if _letters(name) in known]
            if len(found) > 1:
                raise self.refusal(option, f"has several columns for it ({', '.join(found)})")
            if found:
                self.taken[found[0]] = option
                return (found[0],)
        return ()

    def labels(self) -> tuple[str, ...]:
        """The column that is called as labels are, or else all columns of 0 and 1."""
        option = "label_columns"
        found = self._guessed(option, _LABELS) or tuple(
            name
            for name in self._free()
            if not identifies(name) and _letters(name) not in _SEX and is_binary(self.table[name])
        )
        if not found:
            raise self.refusal(
                option, "has no column that is called as labels are, and none of 0 and 1"
            )
        self.taken |= dict.fromkeys(found, option)
        return found

    def groups(self, given: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The columns of subgroups, which are `given` or all without another use, and notes on
        those that are passed over since they may name people."""
        names = given or self._free()
        private = [name for name in names if identifies(name)]
        many = [name for name in names if name not in private and self._has_many(name)]
        reasons = {
            "may identify people, whose values are not logged": private,
            f"have over {GROUP_VALUES} different values, which may name people": many,
        }
        notes = tuple(
            f"no subgroups of columns that {reason}: {', '.join(columns)}"
            for reason, columns in reasons.items()
            if columns
        )
        if given and notes:
            raise WrongUse(
                f"group_columns: {notes[0]}; leave them out, or make their values coarser under "
                "another name"
            )
        return tuple(n for n in names if n not in private and n not in many), notes

    def _has_many(self, name: str) -> bool:
        return len(group(self.table[name]).unique()) > GROUP_VALUES

    def _free(self) -> list[str]:
        return [name for name in self.table.columns if name not in self.taken]

    def refusal(self, option: str, why: str, name: str = "") -> WrongUse:
        """The first line of the table may be an image, so runs do not log the columns."""
        remedy = f"name the right one with --{option.replace('_', '-')}"
        columns = ", ".join(map(str, self.table.columns))
        return WrongUse(
            f"{option}: {self.source} {why}{nearest(name, self.table.columns) or ';'} {remedy}. "
            f"Its columns: {columns}",
            logged=f"{option}: {self.source} has no column or several for it; {remedy}",
        )


def _split_names(table: pd.DataFrame) -> list[set[str]]:
    """Other names than split count only for columns with nothing but the names of splits."""
    first, others = _SPLIT
    fit = {
        _letters(name)
        for name in table.columns
        if _letters(name) in others and all(map(split_of, table[name].unique()))
    }
    return [first, fit]


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
