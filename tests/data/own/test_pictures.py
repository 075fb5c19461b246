"""Pictures and arrays: 8 bits as they always were, more bits as grey values that need a window."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from made_data import png_of_16_bit_colour
from PIL import Image, ImageOps
from readings import decoded, reading

from pepr_mlops.data.own import pixels
from pepr_mlops.data.own.pixels import Unusable, oddity, square

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (9, 12, 4), np.uint8)


def _one(path: Path, window: str = "auto") -> np.ndarray:
    (image,) = decoded(path, reading(window))
    return image


def _written(path: Path, array: np.ndarray, **how: object) -> Path:
    """By tifffile: a library other than the one that reads."""
    tifffile.imwrite(path, array, **how)
    return path


def _by_pillow(image: Image.Image, grey: bool) -> np.ndarray:
    """Turned, on black, converted and then resized."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode in ("LA", "RGBA"):
        black = Image.new("RGBA", turned.size, "black")
        turned = Image.alpha_composite(black, turned.convert("RGBA"))
    converted = turned.convert("L" if grey else "RGB")
    return np.asarray(converted.resize((32, 32), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *[(mode, "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")],
        *[(mode, "jpg") for mode in ("L", "RGB", "CMYK")],
        *[("RGB", suffix) for suffix in ("bmp", "gif", "tif", "webp")],
    ],
)
def test_a_picture_of_8_bits_is_read_as_before(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    stored = COLOUR if mode in ("LA", "RGBA") else COLOUR[..., :3]
    Image.fromarray(stored).convert(mode).save(path, exif=exif)
    grey = mode in ("1", "L", "LA")
    image = _one(path)
    for as_grey in (True, False) if grey else (False,):
        with Image.open(path) as opened:
            expected = _by_pillow(opened, as_grey)
        resized = square(image, 32, "stretch", as_grey)  # which rounds once, not twice
        assert np.abs(resized.astype(int) - expected).max() <= 1
    assert pixels.head(path, reading()) == ((0,), grey, False, 0, None, "picture")


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (1, [[10, 20, 30], [40, 50, 60]]),
        (2, [[30, 20, 10], [60, 50, 40]]),  # mirrored
        (3, [[60, 50, 40], [30, 20, 10]]),  # upside down
        (6, [[40, 10], [50, 20], [60, 30]]),  # a camera held upright
        (8, [[30, 60], [20, 50], [10, 40]]),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_a_picture_is_turned_by_its_exif_orientation(
    orientation: int, shown: list[list[int]], deep: bool, tmp_path: Path
) -> None:
    """As the EXIF standard has it (CIPA DC-008, orientation)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.array([[10, 20, 30], [40, 50, 60]], np.uint16 if deep else np.uint8)
    Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
    assert _one(tmp_path / "x.png", "127.5,255").tolist() == shown


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    stored = np.array([[[200, 100, 50, 255], [200, 100, 50, 51], [200, 100, 50, 0]]], np.uint8)
    Image.fromarray(stored).save(path)
    assert _one(path).tolist() == [[[200, 100, 50], [40, 20, 10], [0, 0, 0]]]  # 51 is a fifth
    Image.fromarray(np.array([[[200, 255], [200, 51], [200, 0]]], np.uint8)).save(path)
    assert _one(path).tolist() == [[200, 40, 0]]
    few = Image.fromarray(stored[..., :3]).quantize(4)
    few.putpixel((2, 0), 3)
    few.save(path, transparency=3)
    assert _one(path)[0, 2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_the_first_of_several_frames_is_used_and_the_others_are_counted(
    suffix: str, tmp_path: Path
) -> None:
    first, *others = (Image.new("L", (20, 20), value) for value in (40, 120, 200))
    first.save(tmp_path / f"x.{suffix}", save_all=True, append_images=others)
    head = pixels.head(tmp_path / f"x.{suffix}", reading(frames="all"))
    assert (head.frames, head.further) == ((0,), 2)
    assert abs(int(_one(tmp_path / f"x.{suffix}").max()) - 40) < 4


def test_the_same_values_in_16_bits_are_the_same_image(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 16
    Image.fromarray(deep).save(tmp_path / "x.png")
    _written(tmp_path / "x.tif", deep)
    _written(tmp_path / "big.tif", deep, byteorder=">")
    _written(tmp_path / "float.tif", deep.astype(np.float32))
    _written(tmp_path / "32.tif", deep.astype(np.uint32))
    _written(tmp_path / "signed.tif", deep.astype(np.int16))
    np.save(tmp_path / "x.npy", deep)
    np.save(tmp_path / "float.npy", deep[:, :, None].astype(np.float64))
    Image.fromarray(RAMP).save(tmp_path / "8.png")
    assert np.array_equal(_one(tmp_path / "8.png", "127.5,255"), RAMP)
    for path in sorted(tmp_path.iterdir()):
        if path.name != "8.png":
            assert pixels.head(path, reading()).bounded, path
            assert np.array_equal(_one(path, "2040,4080"), RAMP), path


def test_large_unsigned_values_stay_large_and_white_may_be_0(tmp_path: Path) -> None:
    large = np.array([[0, 2**31], [2**32 - 1, 1]], np.uint32)
    (found,) = pixels.values(_written(tmp_path / "x.tif", large), (0,), reading())
    assert found.tolist() == large.tolist()
    inverted = _written(
        tmp_path / "i.tif", np.array([[0, 4095]], np.uint16), photometric="miniswhite"
    )
    assert _one(inverted, "2048,4096").tolist() == [[255, 0]]


def test_percentiles_of_deep_grey_are_those_of_numpy(tmp_path: Path) -> None:
    deep = RNG.gamma(2, 900, (64, 64)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "x.png")
    low, high = np.percentile(deep, [0.5, 99.5])
    expected = np.rint(np.clip((deep - low) * 255 / (high - low), 0, 255))
    assert np.array_equal(_one(tmp_path / "x.png"), expected)
    with pytest.raises(ValueError, match="needs the bounds"):
        list(pixels.images(tmp_path / "x.png", (0,), reading(), None))
    with pytest.raises(Unusable, match="over 8 bits and no window of its own"):
        pixels.head(tmp_path / "x.png", reading("dicom"))


def test_arrays_are_grey_or_colour(tmp_path: Path) -> None:
    for name, array in (("grey", RAMP), ("thin", RAMP[:, :, None]), ("colour", COLOUR[..., :3])):
        np.save(tmp_path / f"{name}.npy", array)
        image = _one(tmp_path / f"{name}.npy")
        assert np.array_equal(image, array.squeeze())
    np.save(tmp_path / "mask.npy", np.array([[True, False]]))
    assert _one(tmp_path / "mask.npy").tolist() == [[255, 0]]


def _bomb(path: Path) -> None:
    """A grey PNG that claims 40,000 × 40,000 pixels."""
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    start = content.index(b"IHDR")
    checksum = struct.pack(">I", zlib.crc32(header))
    path.write_bytes(content[:start] + header + checksum + content[start + len(header) + 4 :])


def _transparent(path: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint16)).save(path, transparency=0)


@pytest.mark.parametrize(
    ("spoil", "refused"),
    [
        (lambda path: path.write_bytes(b""), "is empty; copy it again or remove it"),
        (lambda path: path.write_text("note"), "cannot be read .UnidentifiedImageError.; repair"),
        (lambda path: path.write_bytes(path.read_bytes()[:-60]), "is truncated; copy it again"),
        (lambda path: path.write_bytes(png_of_16_bit_colour()), "over 8 bits a channel in colour"),
        (_transparent, "or with transparency, which would be cut off; save it as 8-bit colour"),
        (_bomb, "has over 178,956,970 pixels an image; save it smaller or remove it"),
        (lambda path: path.unlink(), "cannot be read .No such file or directory."),
    ],
)
def test_a_bad_picture_is_named_by_what_is_wrong(
    spoil: Callable[[Path], object], refused: str, tmp_path: Path
) -> None:
    path = tmp_path / "planted.png"
    Image.fromarray(RNG.integers(0, 256, (40, 40), np.uint8)).save(path)
    spoil(path)
    with pytest.raises(Unusable, match=refused) as caught:
        decoded(path, reading())
    assert "planted" not in str(caught.value)


def test_deep_colour_in_a_tiff_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "x.tif", COLOUR[..., :3].astype(np.uint16), photometric="rgb")
    with pytest.raises(Unusable, match="over 8 bits a channel in colour or with"):
        pixels.head(path, reading())


class _Harmful:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, ("raise SystemExit",)


def _huge(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(16, 16), }      ", b"(99999, 99999), }"))


@pytest.mark.parametrize(
    ("spoil", "refused"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "is truncated or no array of"),
        (lambda path: np.save(path, np.array([[_Harmful()]])), "or no array of numbers; save it"),
        (lambda path: np.save(path, np.array([["a"]])), "is neither .height, width. of numbers"),
        (lambda path: np.save(path, np.zeros((2, 2, 3))), "nor uint8 .height, width, 3.; save"),
        (lambda path: np.save(path, np.zeros((5, 2, 2))), "save each image to a file of its own"),
        (lambda path: np.save(path, np.zeros((2, 2), complex)), "is neither"),
        (lambda path: np.save(path, np.zeros((0, 2))), "has no pixels"),
        (lambda path: np.save(path, np.array([[1.0, np.inf]])), "that are not finite; replace"),
        (_huge, "is truncated or no array of numbers"),
    ],
)
def test_a_bad_array_is_named_by_what_is_wrong(
    spoil: Callable[[Path], object], refused: str, tmp_path: Path
) -> None:
    path = tmp_path / "planted.npy"
    np.save(path, RAMP)
    spoil(path)
    with pytest.raises(Unusable, match=refused) as caught:
        decoded(path, reading())
    assert "planted" not in str(caught.value)


def test_a_large_sparse_array_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (20_000, 10_000))  # a hole on the disk
    with pytest.raises(Unusable, match="has over 178,956,970 pixels an image"):
        pixels.head(path, reading())


def test_a_file_of_another_kind_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(Unusable, match="is no image by its name; rename or remove it"):
        pixels.head(tmp_path / "notes.txt", reading())


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([5], "is constant"),
        ([0, 255], "has only 2 grey values"),
        ([0, 1, 2, 3], "has only 4 grey values"),
        ([0, 1, 2, 3, 4], None),
    ],
)
def test_constant_images_and_masks_are_odd(values: list[int], found: str | None) -> None:
    image = np.resize(np.array(values, np.uint8), (10, 10))
    assert oddity(image) == found
    coloured = np.stack([image, image, 255 - image], axis=2)
    assert oddity(coloured) == (found and found.replace("grey values", "colours"))
