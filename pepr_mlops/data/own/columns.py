"""What the columns of a table are for: as the user says, or else by their names. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from pepr_mlops.data.own.labels import MISSING, is_binary
from pepr_mlops.data.own.listing import Known
from pepr_mlops.data.own.split_names import split_of
from pepr_mlops.errors import WrongUse, nearest
from pepr_mlops.names import GROUP_VALUES

_Guess = Callable[[str], bool]  # of the name of a column
_OPTIONS = ("image_column", "label_columns", "patient_column", "split_column", "group_columns")
_OPTIONAL = ("patient_column", "split_column")  # for an external set
UNKNOWN = "not known"  # the subgroup of an empty cell

# Names of columns without case and signs.
_IMAGE = {
    *("image", "images", "imageid", "imagepath", "imagename", "imagefile", "imagefilename"),
    *("imageindex", "img", "imgid", "imgpath", "imgname", "imgfile"),
    *("file", "filename", "filepath", "path", "dicom", "dicomfile", "dicompath", "dcmpath"),
}
_LABELS = {
    *("label", "labels", "class", "classes", "classname", "category", "target", "targets"),
    *("dx", "diagnosis", "diagnoses", "finding", "findings", "findinglabel", "findinglabels"),
}
_PATIENT = {
    *("patient", "patients", "patientid", "patientnumber", "patientno", "subject", "subjectid"),
    *("participant", "participantid", "pid", "mrn", "eid"),
}
_NUMBER = "(id|no|nr|num|number|code|key|index|uid|uuid|guid|hash|name|pseudonym)"
_LIKE_PATIENT = re.compile(
    f"(patient|subject|participant)s?{_NUMBER}+$"
    f"|^(pat|pt|subj|person|individual|proband|animal){_NUMBER}+$"
)
_LIKE_CASE = re.compile(f"^(case|lesion){_NUMBER}$")
_SPLIT = {"split", "splits"}
_FOLDS = {"fold", "folds", "kfold", "cvfold"}
_LIKE_SPLIT = {"set", "sets", "partition", "subset", "fold", "datasplit", "splitset", "dataset"}
_SEX = {"sex", "gender", "male", "female"}  # never labels by a guess, although often 0 and 1
# Columns whose values may identify people: by a word of their name, or by all its letters.
_IDENTIFYING_WORDS = {
    *("id", "uid", "uuid", "guid", "mrn", "pid", "eid", "dob", "ssn", "nhs", "cpr", "card"),
    *("zip", "mail", "note", "notes", "text"),
}
_IDENTIFYING = re.compile(
    "(?<!in)(?<!out)(patient|subject|participant)"
    "(?!s?(age|sex|gender|race|weight|height|size|position|orientation)$)"
    "|accession|name$|(study|series|instance|image|exam|person)u?id$"
    "|^birth$|birth(day|year|place)|(?<!candi)(?<!man)(?<!li)(?<!up)date(?!d)"
    "|address|phone|email|zipcode|postal|postcode|plz$"
    "|socialsecurity|insurance|healthcard|recordn(o$|um)|initials"
    "|physician|doctor|radiologist|comment|remark|freetext"
)
_WORDS = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])")
_UNKNOWN = MISSING | {"none", "-", "unknown"}  # cells without a patient or a subgroup


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


def choose(
    table: pd.DataFrame,
    options: Options,
    source: str,
    known: Known | None = None,
    *,
    labels: bool = True,
) -> Uses:
    """The use of each column of the table that is called `source`.

    The table of an external set, whose classes are `known`, may lack the columns that are given for
    patients and splits, and its splits have no use. Without `labels` no column is of them. Raises
    `WrongUse` for a name that is no column, for several columns that one use could be of, and where
    there is none for the files or the labels.
    """
    columns = _Columns(table, source)
    given = {
        option: columns.given(option, getattr(options, option))
        for option in _OPTIONS
        if known is None or option not in _OPTIONAL or getattr(options, option) in table.columns
    }
    image = columns.one("image_column", given, [_in(_IMAGE)])
    if image is None:
        raise columns.refusal("image_column", "has no column that is called as files of images are")
    patient = columns.one("patient_column", given, _PATIENTS)
    split = columns.one("split_column", given, columns.splits())
    if known is not None:
        split = None
    named = given["label_columns"]
    if labels and not named:
        named = columns.labels(() if known is None else known.classes)
    groups, notes = columns.groups(given["group_columns"], patient)
    return Uses(image, named, patient, split, groups, notes)


def further(table: pd.DataFrame, image: str, source: str) -> Uses:
    """As `choose` for a table without labels, whose files are in the column `image`."""
    columns = _Columns(table, source, {image: "image_column"}, has_options=False)
    patient = columns.one("patient_column", {}, _PATIENTS)
    split = columns.one("split_column", {}, columns.splits())
    groups, notes = columns.groups((), patient)
    return Uses(image, (), patient, split, groups, notes)


def identifies(name: str) -> bool:
    """Whether the values of a column may name a person, by the column's name."""
    words = {word.casefold() for word in _WORDS.split(name)}
    letters = _letters(name)
    return (
        bool(words & _IDENTIFYING_WORDS)
        or letters in _PATIENT
        or any(pattern.search(letters) for pattern in (_IDENTIFYING, _LIKE_PATIENT, _LIKE_CASE))
    )


def group(cells: pd.Series) -> pd.Series:
    """The subgroup of each image."""
    return cells.mask(_is_unknown(cells), UNKNOWN)


def patients_of(cells: pd.Series) -> tuple[pd.Series, tuple[str, ...]]:
    """The patient of each image, empty where unknown, and notes.

    Ids that differ in nothing but case, blanks and Unicode form are of one patient: to take one
    patient for two would let images of one person into two splits.
    """
    plain = cells.mask(_is_unknown(cells), "").map(
        lambda text: " ".join(unicodedata.normalize("NFC", text).split())
    )
    patients = plain.groupby(plain.str.casefold()).transform("min")
    spellings = cells.groupby(patients).nunique().drop("", errors="ignore")
    n = int((spellings > 1).sum())
    note = f"patients whose ids differ in case, blanks or Unicode form, counted as one each: {n:,}"
    return patients, (note,) if n else ()


def _is_unknown(cells: pd.Series) -> pd.Series:
    return cells.str.casefold().isin(_UNKNOWN)


def _in(names: Collection[str]) -> _Guess:
    return lambda column: _letters(column) in names


def _like(pattern: re.Pattern[str]) -> _Guess:
    return lambda column: bool(pattern.search(_letters(column)))


@dataclass
class _Columns:
    """The columns of a table, and the options that those in use are for. A table in a folder has no
    options."""

    table: pd.DataFrame
    source: str
    taken: dict[str, str] = field(default_factory=dict)
    has_options: bool = True

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
        given: Mapping[str, tuple[str, ...]],
        guesses: Iterable[_Guess],
    ) -> str | None:
        """The column that is given for an option or, without it, one that a guess is true of; of
        several guesses the first that is true of any column counts."""
        names = given.get(option) or self._guessed(option, guesses)
        return names[0] if names else None

    def _guessed(self, option: str, guesses: Iterable[_Guess]) -> tuple[str, ...]:
        for guess in guesses:
            found = [name for name in self._free() if guess(name)]
            if len(found) > 1:
                raise self.refusal(option, f"has several columns for it ({', '.join(found)})")
            if found:
                self.taken[found[0]] = option
                return (found[0],)
        return ()

    def splits(self) -> list[_Guess]:
        """A column with the usual name, or else one with nothing but names of splits or, if it is
        called like one, with any: the others are refused when it is read."""

        def has_splits(name: str) -> bool:
            named = {split_of(value) for value in self.table[name].unique()}
            if _letters(name) in _LIKE_SPLIT:
                return named != {None}
            return None not in named and "train" in named

        return [_in(_SPLIT), has_splits]

    def labels(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The columns that are called as all of these `classes`, if any; or else the column that is
        called as labels are, or all columns of 0 and 1."""
        option = "label_columns"
        free = self._free()
        named = tuple(name for name in free if name in classes)
        if len(named) < max(1, len(classes)):
            named = self._guessed(option, [_in(_LABELS)])
        found = named or tuple(
            name
            for name in free
            if not identifies(name) and _letters(name) not in _SEX and is_binary(self.table[name])
        )
        if not found:
            raise self.refusal(
                option, "has no column that is called as labels are, and none of 0 and 1"
            )
        self.taken |= dict.fromkeys(found, option)
        return found

    def groups(
        self, given: Sequence[str], patient: str | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The columns of subgroups, which are `given` or all without another use, and notes on
        those that are passed over since they may name people."""
        names = given or self._free()
        private = [name for name in names if identifies(name)]
        folds = [name for name in names if not given and _letters(name) in _FOLDS]
        names = [name for name in names if name not in private and name not in folds]
        many = [name for name in names if self._has_many(name)]
        others = [name for name in names if name not in many]
        single = []
        if patient is not None:
            ids, _ = patients_of(self.table[patient])
            single = [name for name in others if _names_patients(self.table[name], ids)]
        reasons = {
            "may identify people, whose values are not logged": private,
            f"have over {GROUP_VALUES} different values, which may name people": many,
            "have values of one patient each, which may name people": single,
            "number folds, which `--folds` draws itself": folds,
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
        return tuple(name for name in others if name not in single), notes

    def _has_many(self, name: str) -> bool:
        return len(group(self.table[name]).unique()) > GROUP_VALUES

    def _free(self) -> list[str]:
        return [name for name in self.table.columns if name not in self.taken]

    def refusal(self, option: str, why: str, name: str = "") -> WrongUse:
        """The first line of the table may be an image, so runs do not log the columns."""
        remedy = "rename or remove all but one"
        if self.has_options:
            remedy = f"name the right one with --{option.replace('_', '-')}"
        columns = ", ".join(map(str, self.table.columns))
        return WrongUse(
            f"{option}: {self.source} {why}{nearest(name, self.table.columns) or ';'} {remedy}. "
            f"Its columns: {columns}",
            logged=f"{option}: {self.source} has no column or several for it; {remedy}",
        )


def _names_patients(cells: pd.Series, ids: pd.Series) -> bool:
    """Whether each value is of one of several patients alone, and of several images of some."""
    known = pd.DataFrame({"id": ids, "value": cells})[(ids != "") & ~_is_unknown(cells)]
    each = known.drop_duplicates()
    several = each["id"].nunique() > 1 and len(each) < len(known)
    return several and bool(each["value"].is_unique)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


_PATIENTS = (_in(_PATIENT), _like(_LIKE_PATIENT), _like(_LIKE_CASE))
