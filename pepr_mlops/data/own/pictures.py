"""Images in the formats of pictures, such as PNG, JPEG and TIFF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from pepr_mlops.data.own.reading import Contents, Frame, Reading, Unusable, Values, too_large

_GREY_MODES = {"1", "L", "LA"}
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # tags of TIFF


def contents(path: Path, reading: Reading) -> Contents:
    with _opened(path) as image:
        deep = is_deep(image)
        return Contents((0,), _further(image), grey=deep or is_grey(image), deep=deep)


def frames(path: Path, numbers: Sequence[int], reading: Reading) -> Iterator[Frame]:
    """The first frame, once for each number."""
    with _opened(path) as image:
        try:
            image.load()
        except OSError as error:
            if "truncated" in str(error).lower():
                raise Unusable("is truncated; copy it again or remove it") from None
            raise
        frame = (
            _deep(image) if is_deep(image) else Frame(np.asarray(as_seen(image, is_grey(image))))
        )
    for _ in numbers:
        yield frame


def saved_as(path: Path) -> tuple[str, str]:
    """Pillow's names for the colours and the format of a file."""
    with _opened(path) as image:
        return image.mode, str(image.format)


def is_grey(image: Image.Image) -> bool:
    """Whether an image of 8 bits a channel is grey."""
    return image.mode in _GREY_MODES


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image has over 8 bits a channel, even where Pillow would cut them off."""
    return image.mode[0] in "IF" or ";16" in str(image.tile)


def as_seen(image: Image.Image, grey: bool) -> Image.Image:
    """The image as a viewer shows it: turned by its EXIF orientation, and black where it is
    transparent, since transparent pixels may have any colour."""
    turned = ImageOps.exif_transpose(image)
    if turned.has_transparency_data:
        black = Image.new("RGBA", turned.size, (0, 0, 0, 255))
        turned = Image.alpha_composite(black, turned.convert("RGBA"))
    return turned.convert("L" if grey else "RGB")


def _opened(path: Path) -> ImageFile.ImageFile:
    try:
        image = Image.open(path)
    except Image.DecompressionBombError:
        raise too_large() from None
    if is_deep(image) and (image.mode[0] not in "IF" or image.has_transparency_data):
        image.close()
        raise Unusable(
            "has over 8 bits a channel in colour or with transparency, which would be cut off; "
            "save it as 8-bit colour, or as grey without transparency"
        )
    return image


def _further(image: Image.Image) -> int:
    """Frames or pages after the first."""
    try:
        return int(getattr(image, "n_frames", 1)) - 1
    except Exception:  # Pillow raises any error on a damaged second frame
        return 1


def _deep(image: ImageFile.ImageFile) -> Frame:
    tags: dict[int, object] = dict(getattr(image, "tag_v2", {}))
    values: Values = np.asarray(ImageOps.exif_transpose(image))
    # Pillow reads 32 unsigned bits as signed, and inverts WhiteIsZero only of 8 bits.
    if values.dtype == np.int32 and tags.get(_SAMPLE_FORMAT, (1,)) == (1,) and tags:
        values = values.view(np.uint32)
    return Frame(values, white=None, inverted=tags.get(_PHOTOMETRIC) == 0)
