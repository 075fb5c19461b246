"""Images to predict: a file, a folder or a table, with labels where they are those of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from pepr_mlops.data.own import folder, table, walk
from pepr_mlops.data.own.columns import Options
from pepr_mlops.data.own.kinds import is_table, kind_of
from pepr_mlops.data.own.listing import Known, Listing
from pepr_mlops.data.own.table import texts
from pepr_mlops.errors import WrongUse

_NO_FOLDERS = "no folder has the name of a class of the model"


def listing(path: Path, options: Options, known: Known) -> tuple[Listing, str | None]:
    """All images of a file, a folder or a table, sorted by their path, and why they have no labels,
    None where they have. The labels are -1 where they are not known.

    An image that cannot be read is listed, too. A folder has labels if the folders in it have the
    names of the `known` classes, a table if it has columns of labels. Raises `WrongUse` where there
    is no image, and for a table as `table.listing`.
    """
    is_file = path.is_file()
    if is_file and is_table(str(path)):
        return _of_table(path, options, known)
    if options != Options():
        raise WrongUse(f"data: {path} is no table, and some of the options are of tables")
    if path.is_dir():
        return _of_folder(path, known)
    if not is_file:
        raise WrongUse(
            f"data: there is no file, folder or data set {path}; correct the path",
            reason="missing_data",
        )
    if kind_of(path) is None:
        raise WrongUse(
            f"data: {path} is no image by its name; name a picture, a DICOM, NIfTI or .npy file, a "
            "folder of these, or a table of their names (.csv)"
        )
    return _unlabelled(path.parent, [path.name], known), "it is a single image"


def _of_table(path: Path, options: Options, known: Known) -> tuple[Listing, str | None]:
    try:
        return table.to_predict(path, options, known, labels=True).by_path(), None
    except WrongUse as error:
        if options.label_columns is not None:
            raise
        bare = table.to_predict(path, options, known, labels=False)  # or raises the same
        return bare.by_path(), str(error)


def _of_folder(root: Path, known: Known) -> tuple[Listing, str | None]:
    found = walk.find(root, without={folder.TABLE}, strict=False)
    if not found.images:
        raise WrongUse(
            f"data: there is no image below {root} ({'; '.join(found.notes) or 'it is empty'}); "
            "name the folder that they are in",
            reason="missing_data",
        )
    bare = replace(
        _unlabelled(root, found.images, known), notes=found.notes, details=found.details
    ).by_path()
    parts = {part for name in found.folders for part in PurePosixPath(name).parts}
    if not parts & set(known.classes):
        return bare, _NO_FOLDERS
    try:
        own = folder.listing(root, known)
    except WrongUse as error:
        return bare, str(error)
    row = {file: i for i, file in enumerate(bare.files.tolist())}
    rows = [row[file] for file in own.files.tolist()]
    for some, of_all in ((own.labels, bare.labels), (own.splits, bare.splits)):
        of_all[rows] = some
    patients = None
    if own.patients is not None:
        patients = np.full(len(bare), "", own.patients.dtype)
        patients[rows] = own.patients
    return replace(bare, patients=patients), None


def _unlabelled(root: Path, files: Sequence[str], known: Known) -> Listing:
    return Listing(
        name=root.resolve().name,
        root=root,
        files=texts(files),
        labels=known.unsure(len(files)),
        classes=known.classes,
        task=known.task,
        splits=np.full(len(files), "", "<U5"),
    )
