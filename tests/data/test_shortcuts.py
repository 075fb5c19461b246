"""Properties of files that predict the class, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pepr_mlops.data.audit_files import audit_target
from pepr_mlops.data.shortcuts import Shortcut, shortcut
from pepr_mlops.spec import RunSpec


def test_a_property_predicts_two_classes() -> None:
    """5 and 3 images: naming `a` is right for 5; 3 mistakes, all spared, are below 2 √3."""
    assert shortcut(["PNG"] * 5 + ["JPEG"] * 3, ["a"] * 5 + ["b"] * 3) is None
    found = shortcut(["PNG"] * 6 + ["JPEG"] * 4, ["a"] * 6 + ["b"] * 4)  # 4 mistakes, 2 √4
    assert found == Shortcut(10, 10, 6, (("PNG", 6, "a", 6), ("JPEG", 4, "b", 4)))


def test_a_property_predicts_one_class_of_ten() -> None:
    """40 images of each class. Only those of `9` are larger: 40 of 360 mistakes are spared, over a
    tenth and over 2 √360 = 37.9."""
    labels = [str(i) for i in range(10) for _ in range(40)]
    values = ["large" if label == "9" else "small" for label in labels]
    found = shortcut(values, labels)
    assert found is not None
    assert (found.n, found.right, found.right_by_largest) == (400, 80, 40)
    assert found.values == (("small", 360, "0", 40), ("large", 40, "9", 40))


def test_a_property_of_some_images_of_a_class_predicts_it() -> None:
    """Of 20 and 20 images the first 12 of `b` are JPEG: 12 of 20 mistakes are spared."""
    values = ["PNG"] * 20 + ["JPEG"] * 12 + ["PNG"] * 8
    found = shortcut(values, ["a"] * 20 + ["b"] * 20)
    assert found is not None
    assert (found.right, found.right_by_largest) == (32, 20)
    few = ["PNG"] * 20 + ["JPEG"] * 8 + ["PNG"] * 12  # 8 are below 2 √20 = 8.9
    assert shortcut(few, ["a"] * 20 + ["b"] * 20) is None


@pytest.mark.parametrize("same", [1, 2, 4, 60])
def test_a_property_that_does_not_depend_on_the_class_predicts_nothing(same: int) -> None:
    """Sizes that no other image has, that a few have, and that all have."""
    labels = ["a", "b"] * 60
    assert shortcut([str(i // same) for i in range(120)], labels) is None


def test_nearly_unique_values_predict_nothing() -> None:
    """Each of 50 values is of one class and of a single image: all are guessed as the largest."""
    assert shortcut([str(i) for i in range(50)], ["a"] * 30 + ["b"] * 20) is None
    assert shortcut([], []) is None


@pytest.mark.parametrize("what", ["size in pixels", "colour mode", "file format"])
def test_a_folder_is_checked_for_each_property(what: str, shapes: Path) -> None:
    """All dark images of train are smaller, or have a palette, or are JPEG."""
    for path in sorted((shapes / "train" / "dark").iterdir()):
        with Image.open(path) as image:
            pixels = Image.fromarray(np.asarray(image))
        path.unlink()
        if what == "size in pixels":
            pixels.resize((10, 20)).save(path)
        elif what == "colour mode":
            pixels.convert("P").save(path)
        else:
            pixels.save(path.with_suffix(".jpg"), quality=95)
    (audit,) = audit_target(RunSpec(dataset=str(shapes)))
    (finding,) = [f for f in audit.findings if f.kind == "shortcut"]
    assert finding.severity == "warning"
    assert finding.message.startswith(
        f"the {what} predicts the class: guessing by it is right for 100% of the images of train, "
        "always naming the largest class for 50%"
    )
    assert (
        finding.examples
        == {
            "size in pixels": ("20×10: 16 of 16 are dark", "20×20: 16 of 16 are light"),
            "colour mode": ("P: 16 of 16 are dark", "L: 16 of 16 are light"),
            "file format": ("JPEG: 16 of 16 are dark", "PNG: 16 of 16 are light"),
        }[what]
    )
