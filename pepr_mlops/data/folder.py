"""A folder of images: DIR/{train,val,test}/CLASS/*.png, where val and test may be missing, and
DIR/images.csv with what is known of them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from pepr_mlops.data.digest import is_litter
from pepr_mlops.data.groups import with_groups
from pepr_mlops.data.splits import SPLITS, Labels, Split, Splits, draw
from pepr_mlops.errors import WrongUse, nearest, one_line

# Other names that people give the splits.
_SPELLINGS = {"training": "train", "testing": "test"} | dict.fromkeys(
    ("valid", "validation", "dev"), "val"
)
_SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_GREY_MODES = {"1", "L", "LA"}
# Shares of the PePR paper's own split: 60 % / 20 % / 20 %.
_DRAWN_SHARE = 0.2


def load(directory: str, image_size: int, seed: int) -> Splits:
    """The images below `directory`, each resized to a square of `image_size` pixels.

    Images are grey if all files are, else RGB. A missing `val` or `test` is drawn by class with
    `seed`: 20 % of `train` for each. Groups are those of `groups.with_groups`. Raises `WrongUse`
    with the folder or file that cannot be used.
    """
    root = Path(directory)
    files = find(root)
    classes = tuple(sorted(files["train"]))
    if len(classes) < 2:
        raise WrongUse(
            f"dataset: {root} needs at least two class folders with images in {root / 'train'}, "
            f"found {', '.join(classes) or 'none'}; expected DIR/train/CLASS/*.png"
        )
    paths = [p for by_class in files.values() for own in by_class.values() for p in own]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        heads = list(pool.map(_head, paths))
    grey = all(one_is_grey for one_is_grey, _ in heads)
    further = sum(further_frames for _, further_frames in heads)
    splits = {
        name: _read(root, own, classes, image_size, grey) for name, own in files.items() if own
    }
    missing = [name for name in ("val", "test") if name not in splits]
    if missing:
        drawn, rest = draw(splits["train"].labels, _DRAWN_SHARE * len(missing), seed)
        if len(missing) == 2:
            half, other = draw(splits["train"].labels[drawn], 0.5, seed)
            splits["val"] = splits["train"].take(drawn[half])
            splits["test"] = splits["train"].take(drawn[other])
        else:
            splits[missing[0]] = splits["train"].take(drawn)
        splits["train"] = splits["train"].take(rest)
    found = Splits(
        name=root.resolve().name,
        source=str(root.resolve()),
        task="binary-class" if len(classes) == 2 else "multi-class",
        classes=classes,
        channels=1 if grey else 3,
        notes=(frames_text(further, len(paths)),) if further else (),
        **splits,
    )
    return with_groups(found, root)


def find(root: Path) -> dict[str, dict[str, list[Path]]]:
    """The image files of each split by class, as `files_of` returns them.

    Raises `WrongUse` as `files_of`, for images in folders that are not read, and for a class that
    has images, but none in train.
    """
    for place, remedy in misplaced(root).items():
        raise WrongUse(f"dataset: the images in {place} would not be read; {remedy}")
    files = {split: files_of(root / split) for split in SPLITS}
    trained = files["train"]
    for split, classes in files.items():
        for name in classes:
            if trained and name not in trained:
                raise WrongUse(
                    f"dataset: class {name!r} in {root / split} has no training image in "
                    f"{root / 'train'}{nearest(name, trained) or '.'} Name its folders alike in "
                    "all splits, add images or remove it"
                )
    return files


def misplaced(root: Path) -> dict[Path, str]:
    """Folders with images that training would wrongly pass over, each with the remedy: a split of
    another name, images outside the folder of their class, or deeper."""
    found = {}
    try:
        entries = sorted(root.iterdir()) if root.is_dir() else []
    except OSError:  # `files_of` reports a split that cannot be listed
        entries = []
    for entry in entries:
        split = _SPELLINGS.get(entry.name.lower(), entry.name.lower())
        if split not in SPLITS or entry.name in SPLITS or not entry.is_dir():
            continue
        if (root / split).is_dir() and (root / split).samefile(entry):  # case-insensitive disk
            continue
        found[entry] = f"rename it to {split} or, to exclude it, to a name unlike a split's"
    for split in SPLITS:
        for folder, folders, names in os.walk(root / split, followlinks=False):
            folders[:] = sorted(name for name in folders if not passed_over(name))
            depth = len(Path(folder).relative_to(root).parts)
            if depth != 2 and any(_is_image(name) for name in names):
                found[Path(folder)] = f"move them to {root / split}/CLASS/"
    return found


def passed_over(name: str) -> bool:
    """Whether files and folders of this name are neither images nor classes."""
    return name.startswith(".") or is_litter(name)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _SUFFIXES and not passed_over(name)


def files_of(folder: Path) -> dict[str, list[Path]]:
    """Sorted image files of one split by class name; empty when the folder is absent.

    Raises `WrongUse` where it cannot be listed, or the name of a class is not text.
    """
    try:
        if not folder.is_dir():
            return {}
        found = {
            entry.name: sorted(p for p in entry.iterdir() if _is_image(p.name))
            for entry in sorted(folder.iterdir())
            if entry.is_dir() and not passed_over(entry.name)
        }
    except OSError as error:
        raise WrongUse(
            f"dataset: {error.filename} cannot be listed ({error.strerror}); make it readable",
            reason="missing_data",
        ) from error
    for name in found:
        if any(0xD800 <= ord(c) <= 0xDFFF for c in name):  # bytes that are no text (PEP 383)
            raise WrongUse(
                f"dataset: the folder {name!r} in {folder} has a name that is not UTF-8 text and "
                "cannot be logged as a class; rename it"
            )
    return {name: paths for name, paths in found.items() if paths}


def is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY_MODES


def as_seen(image: Image.Image, grey: bool) -> Image.Image:
    """The image as a viewer shows it: turned by its EXIF orientation, and black where it is
    transparent, since transparent pixels may have any colour."""
    turned = ImageOps.exif_transpose(image)
    if turned.has_transparency_data:
        black = Image.new("RGBA", turned.size, (0, 0, 0, 255))
        turned = Image.alpha_composite(black, turned.convert("RGBA"))
    return turned.convert("L" if grey else "RGB")


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image has over 8 bits a channel, even where Pillow would cut them off."""
    return image.mode[0] in "IF" or ";16" in str(image.tile)


def has_further_frames(image: Image.Image) -> bool:
    """Whether a file has frames or pages after the first; only the first is used."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # Pillow raises any error on a damaged second frame
        return True


def frames_text(further: int, n: int) -> str:
    return f"{further:,} of {n:,} images have more than one frame; training uses the first"


def _head(path: Path) -> tuple[bool, bool]:
    """Whether an image is grey, and whether it has further frames."""
    try:
        with Image.open(path) as image:
            return is_grey(image), has_further_frames(image)
    except Exception as error:  # Pillow raises any error on damaged files
        raise _unreadable(path, error) from error


def _read(
    root: Path,
    files: dict[str, list[Path]],
    classes: tuple[str, ...],
    image_size: int,
    grey: bool,
) -> Split:
    paths = [path for found in files.values() for path in found]
    labels: Labels = np.concatenate(
        [np.full(len(found), classes.index(name)) for name, found in files.items()]
    ).astype(np.int64)
    shape = (image_size, image_size) if grey else (image_size, image_size, 3)
    images = np.empty((len(paths), *shape), dtype=np.uint8)

    def decode(i: int) -> None:
        try:
            with Image.open(paths[i]) as opened:
                # Which grey is white is unknown. Pillow would clip grey and cut off colour.
                if is_deep(opened):
                    raise WrongUse(
                        f"dataset: {paths[i]} has over 8 bits a channel; save it windowed to 8 bits"
                    )
                image = as_seen(opened, grey)
                images[i] = np.asarray(image.resize(shape[:2], Image.Resampling.BILINEAR))
        except WrongUse:
            raise
        except Exception as error:  # as above
            raise _unreadable(paths[i], error) from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode, range(len(paths))):
            pass
    return Split(images, labels, np.array([path.relative_to(root).as_posix() for path in paths]))


def _unreadable(path: Path, error: Exception) -> WrongUse:
    return WrongUse(
        f"dataset: {path} is not a readable image ({one_line(error)[:100]}); repair or remove it",
        reason="missing_data",
    )
