"""Doubts about the images that a model is trained and tested on. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from pepr_mlops.data.duplicates import ImageKey, Part, identical_pairs, image_key, summarise
from pepr_mlops.data.splits import EXAMPLES, LEAST, Split, Splits, per_class, scarce
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import DOUBTS, PATIENT

_TAGS = {"leak": "pepr.data_leak", "conflict": "pepr.data_conflict", "repeat": "pepr.data_repeats"}
_TRAINED_ON_TEST = ("test", "train")  # the splits of the leaks that spoil a result


def doubts(splits: Splits) -> dict[str, str]:
    """The tags of `names.DOUBTS` that apply, each with a sentence that has the counts.

    It compares the drawn images in the size in which they were read.
    """
    by_name = splits.by_name()
    images = {name: len(split) for name, split in by_name.items()}
    parts = [
        Part(
            name,
            [name] * images[name],
            _keys(split),
            split.labels,
            images[name],
        )
        for name, split in by_name.items()
    ]
    texts: dict[str, list[str]] = {doubt.tag: [] for doubt in DOUBTS}
    for found in summarise(identical_pairs(parts, splits.classes), images):
        spoils_val = found.kind == "leak" and (found.split, found.other_split) != _TRAINED_ON_TEST
        texts["pepr.data_val" if spoils_val else _TAGS[found.kind]].append(found.text)
    for name, tag in (("test", "pepr.data_few"), ("val", "pepr.data_val")):
        few = scarce(per_class(by_name[name].labels, len(splits.classes)), splits.classes, LEAST)
        if few:
            more = f" and {len(few) - EXAMPLES:,} more" if len(few) > EXAMPLES else ""
            texts[tag].append(
                f"{name} has fewer than {LEAST} images for {len(few):,} of "
                f"{len(splits.classes):,} classes, {', '.join(few[:EXAMPLES])}{more}"
            )
    for name, split in splits.external.items():
        texts["pepr.data_external"] += _also_trained_on(name, split, splits, parts)
    if splits.shared_patients is not None:
        texts["pepr.data_patients"].append(splits.shared_patients)
    return {tag: "; ".join(own) for tag, own in texts.items() if own}


def _also_trained_on(
    name: str, split: Split, splits: Splits, parts: Sequence[Part]
) -> Iterator[str]:
    """Images and patients of an external set that the training has seen."""
    title = f"external {name}"
    seen = [one for one in parts if one.name != "test"]
    all_parts = [*seen, Part(title, [name] * len(split), _keys(split), split.labels, len(split))]
    images = {one.name: len(one.names) for one in all_parts}
    for found in summarise(identical_pairs(all_parts, splits.classes), images):
        if found.kind == "leak" and found.split == title:
            yield found.text
    for where in ("train", "val"):
        here = np.unique(split.groups.get(PATIENT, []))
        both = np.isin(here, splits.by_name()[where].groups.get(PATIENT, [])).sum()
        if both:
            yield f"{both:,} of {len(here):,} patients of {title} are also in {where}"


def _keys(split: Split) -> list[ImageKey | None]:
    if isinstance(split.images, np.ndarray):
        return [image_key(image) for image in split.images]
    assert split.keys is not None
    height, width, *channels = split.images.shape[1:]
    colour: Literal["grey", "RGB"] = "RGB" if channels else "grey"
    return [ImageKey(key, height, width, colour) for key in split.keys.tolist()]


def doubt_texts(found: Mapping[str, str]) -> list[str]:
    """A sentence for each tag of `doubts`, with its meaning."""
    return [doubt.text(found[doubt.tag]) for doubt in DOUBTS if doubt.tag in found]


def refuse_doubts(name: str, found: Mapping[str, str]) -> None:
    """Raise `WrongUse` if `doubts` found any in the data set of this name."""
    if found:
        raise WrongUse(
            f"dataset: {name}: {'; '.join(found.values())}. Correct the images that `pepr data "
            "check` lists, or train without --strict",
            reason="doubtful_data",
        )
