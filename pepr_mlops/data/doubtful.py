"""What is doubtful about the images that a model is trained and tested on. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pepr_mlops.data.splits import EXAMPLES, LEAST, Splits, per_class, scarce
from pepr_mlops.data.twins import Found, Part, look, summed, twins
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import DOUBTS


def doubts(splits: Splits) -> dict[str, str]:
    """The tags of `names.DOUBTS` that apply, each with a sentence that has the counts.

    Images are compared as the model gets them: as drawn, and in the size that they were read in.
    """
    by_name = {"train": splits.train, "val": splits.val, "test": splits.test}
    parts = [
        Part(name, [name] * len(of), [look(image) for image in of.images], of.labels)
        for name, of in by_name.items()
    ]
    images = {name: len(of) for name, of in by_name.items()}
    said: dict[str, list[str]] = {doubt.tag: [] for doubt in DOUBTS}
    for found in summed(twins(parts, splits.classes), images):
        said[_tag(found)].append(found.text)
    for name, tag in (("test", "pepr.data_few"), ("val", "pepr.data_val")):
        few = scarce(per_class(by_name[name].labels, len(splits.classes)), splits.classes, LEAST)
        if few:
            more = f" and {len(few) - EXAMPLES:,} more" if len(few) > EXAMPLES else ""
            said[tag].append(
                f"{name} has fewer than {LEAST} images for {len(few):,} of "
                f"{len(splits.classes):,} classes, {', '.join(few[:EXAMPLES])}{more}"
            )
    return {tag: "; ".join(texts) for tag, texts in said.items() if texts}


def _tag(found: Found) -> str:
    if found.kind == "leak":
        tested = (found.split, found.other_split) == ("test", "train")
        return "pepr.data_leak" if tested else "pepr.data_val"
    return "pepr.data_conflict" if found.kind == "conflict" else "pepr.data_repeats"


def in_words(found: Mapping[str, str]) -> list[str]:
    """What the doubts of `doubts` mean."""
    return [doubt.text(found[doubt.tag]) for doubt in DOUBTS if doubt.tag in found]


def refuse(name: str, found: Mapping[str, str]) -> None:
    """Raise `WrongUse` where there is a doubt about the data set of this name."""
    if found:
        raise WrongUse(
            f"dataset: {name}: {'; '.join(found.values())}. Correct the images that `pepr data "
            "check` lists, or train without --strict",
            reason="doubtful_data",
        )
