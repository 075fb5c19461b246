"""DICOM files: real ones that pydicom brings, and made ones for each rule and each fault."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from made_dicom import dicom_file, item
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.uid import DeflatedExplicitVRLittleEndian
from readings import decoded, reading

from pepr_mlops.data.own import pixels
from pepr_mlops.data.own.pixels import Unusable

TWELVE_BITS = (np.arange(4096, dtype=np.uint16) % 4001).reshape(64, 64)
EIGHT_BITS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def real(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


def _values(path: Path, window: str = "percentile") -> np.ndarray:
    (found,) = pixels.values(path, (0,), reading(window))
    return found


def _one(path: Path, window: str = "auto") -> np.ndarray:
    (image,) = decoded(path, reading(window))
    return image


def test_a_ct_slice_is_in_hounsfield_units_between_its_percentiles() -> None:
    path = real("CT_small.dcm")
    file = pydicom.dcmread(path)
    hounsfield = apply_modality_lut(file.pixel_array, file)
    assert (hounsfield.min(), hounsfield.max()) == (-896, 1167)  # intercept -1024
    head = pixels.head(path, reading())
    assert head == ((0,), True, True, 0, "1CT1", "dicom")
    assert np.array_equal(_values(path), hounsfield.ravel())  # a window of padding -2000 has none
    low, high = np.percentile(hounsfield, [0.5, 99.5])
    expected = np.rint(np.clip((hounsfield - low) * 255 / (high - low), 0, 255))
    assert np.array_equal(_one(path), expected)


def test_a_window_of_hounsfield_units_is_the_same_without_any_other_file() -> None:
    path = real("CT_small.dcm")
    file = pydicom.dcmread(path)
    file.WindowCenter, file.WindowWidth = 40, 400  # black at -160, white at 240
    file.VOILUTFunction = "LINEAR_EXACT"
    shown = apply_windowing(apply_modality_lut(file.pixel_array, file), file)
    low, high = (bound * file.RescaleSlope + file.RescaleIntercept for bound in (-32768, 32767))
    image = _one(path, "40,400")
    assert np.abs(image - (shown - low) / (high - low) * 255).max() <= 0.5 + 1e-9
    assert not pixels.head(path, reading("40,400")).bounded


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "693_J2KI.dcm",
        "J2K_pixelrep_mismatch.dcm",  # three windows
        "examples_overlay.dcm",  # two windows, 12 bits in 16
    ],
)
def test_a_slice_with_a_window_of_its_own_is_shown_as_pydicom_shows_it(name: str) -> None:
    path = real(name)
    file = pydicom.dcmread(path)
    shown = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file)
    bits, signed = file.BitsStored, file.PixelRepresentation
    slope, intercept = file.get("RescaleSlope", 1), file.get("RescaleIntercept", 0)
    low = (-(2 ** (bits - 1)) if signed else 0) * slope + intercept
    exact = (shown - low) / ((2**bits - 1) * slope) * 255
    for window in ("auto", "dicom"):
        assert not pixels.head(path, reading(window)).bounded
        assert np.abs(_one(path, window) - exact).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    "name",
    [
        "examples_rgb_color.dcm",
        "examples_ybr_color.dcm",
        "examples_jpeg2k.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_rle.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "ExplVR_BigEnd.dcm",  # planes after each other
        "SC_rgb_jpeg.dcm",  # implicit, and claims to be explicit
    ],
)
def test_colour_is_rgb_as_pydicom_decodes_it(name: str) -> None:
    file = pydicom.dcmread(real(name))
    expected = file.pixel_array
    assert np.array_equal(_one(real(name)), expected[0] if expected.ndim == 4 else expected)


def test_a_palette_becomes_its_colours() -> None:
    file = pydicom.dcmread(real("examples_palette.dcm"))  # 16 bits an entry
    expected = apply_color_lut(file.pixel_array, file) // 256
    assert np.array_equal(_one(real("examples_palette.dcm")), expected)


@pytest.mark.parametrize(
    ("frames", "taken", "further"),
    [("first", [0], 29), ("middle", [15], 29), ("all", [*range(30)], 0)],
)
def test_frames_of_a_film_are_chosen(frames: str, taken: list[int], further: int) -> None:
    path = real("examples_ybr_color.dcm")
    head = pixels.head(path, reading(frames=frames))
    assert (list(head.frames), head.further) == (taken, further)
    images = decoded(path, reading(frames=frames))
    expected = pydicom.dcmread(path).pixel_array[taken]
    assert np.array_equal(np.stack(images), expected)


def test_frames_of_a_dose_are_values_of_32_bits() -> None:
    path = real("rtdose.dcm")
    head = pixels.head(path, reading(frames="all"))
    assert len(head.frames) == 15
    found = np.stack(list(pixels.values(path, head.frames, reading(frames="all"))))
    assert np.array_equal(found, pydicom.dcmread(path).pixel_array)


def test_the_same_values_are_the_same_image_however_they_are_stored(tmp_path: Path) -> None:
    """Eight bits as they are; 16 times the values in 12 bits; a sixteenth by the slope; shifted;
    and inverted."""
    plain = dicom_file(tmp_path / "8.dcm", EIGHT_BITS, 8)
    assert np.array_equal(_one(plain), EIGHT_BITS)
    assert np.array_equal(_one(plain, "127.5,255"), EIGHT_BITS)
    wide = EIGHT_BITS.astype(np.uint16) * 16
    deep = dicom_file(tmp_path / "12.dcm", wide, 12)
    assert np.array_equal(_one(deep, "2040,4080"), EIGHT_BITS)  # 0 to 4080
    scaled = dicom_file(
        tmp_path / "s.dcm", wide, 12, RescaleSlope="0.0625", RescaleIntercept="-100"
    )
    assert np.array_equal(_one(scaled, "27.5,255"), EIGHT_BITS)  # -100 to 155
    signed = dicom_file(tmp_path / "n.dcm", EIGHT_BITS.astype(np.int16) - 1024, 16)
    assert np.array_equal(_one(signed, "-896.5,255"), EIGHT_BITS)
    inverted = {"PhotometricInterpretation": "MONOCHROME1"}
    for name, stored, bits, window in (
        ("i8.dcm", 255 - EIGHT_BITS, 8, "auto"),
        ("i12.dcm", (255 - EIGHT_BITS.astype(np.uint16)) * 16, 12, "2040,4080"),
    ):
        assert np.array_equal(
            _one(dicom_file(tmp_path / name, stored, bits, **inverted), window), EIGHT_BITS
        )


def test_bits_below_eight_reach_white(tmp_path: Path) -> None:
    four = dicom_file(tmp_path / "4.dcm", np.array([[0, 1, 15]] * 2, np.uint8), 4)
    assert _one(four).tolist() == [[0, 17, 255]] * 2
    assert sorted({*_one(real("liver_1frame.dcm")).ravel().tolist()}) == [0, 255]  # one bit


def test_eight_bits_with_a_slope_are_values_that_need_a_window(tmp_path: Path) -> None:
    path = dicom_file(tmp_path / "x.dcm", EIGHT_BITS, 8, RescaleSlope="2", RescaleIntercept="0")
    assert pixels.head(path, reading()).bounded
    assert _values(path).max() == 510


def test_eight_bits_use_their_own_window_unless_percentiles_are_requested(tmp_path: Path) -> None:
    path = dicom_file(tmp_path / "x.dcm", EIGHT_BITS, 8, WindowCenter="128", WindowWidth="128")
    assert _one(path)[3:5, [0, -1]].tolist() == [[0, 0], [0, 30]]  # black to 64, white from 191
    assert pixels.head(path, reading("percentile")).bounded


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": "100", "WindowWidth": "0"},
        {"WindowCenter": "100", "WindowWidth": ""},
        {"WindowCenter": "100"},
        {"WindowCenter": "100", "WindowWidth": "0.5"},  # LINEAR has at least 1
        {"WindowCenter": "100", "WindowWidth": "200", "VOILUTFunction": "OTHER"},
    ],
)
def test_a_window_that_dicom_does_not_allow_is_none(
    attributes: dict[str, str], tmp_path: Path
) -> None:
    path = dicom_file(tmp_path / "x.dcm", TWELVE_BITS, 12, **attributes)
    assert pixels.head(path, reading()).bounded
    with pytest.raises(Unusable, match="no window of its own; choose --window auto, percentile or"):
        pixels.head(path, reading("dicom"))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_function_of_a_window_is_respected(function: str, tmp_path: Path) -> None:
    window = {"WindowCenter": ["1000", "5"], "WindowWidth": ["801", "9"]}
    path = dicom_file(tmp_path / "x.dcm", TWELVE_BITS, 12, VOILUTFunction=function, **window)
    shown = apply_windowing(TWELVE_BITS, pydicom.dcmread(path))
    assert np.abs(_one(path) - shown / 4095 * 255).max() <= 0.5 + 1e-9


def _table(first: int, bits: int, entries: list[int]) -> list[pydicom.Dataset]:
    content = np.array(entries, np.uint16).tobytes()
    return item(LUTDescriptor=[len(entries), first, bits], LUTData=content, ModalityLUTType="US")


def test_tables_replace_slopes_and_windows(tmp_path: Path) -> None:
    """Of 16-bit entries, as pydicom computes them; of 12-bit ones, which it cannot."""
    stored = np.arange(64, dtype=np.uint16).reshape(8, 8)
    voi = {
        "VOILUTSequence": _table(5, 16, [65535 - 20 * i for i in range(3000)]),
        "WindowCenter": "1",  # a table comes before a window
        "WindowWidth": "1",
    }
    modality = {"ModalityLUTSequence": _table(10, 16, [i * i for i in range(50)])}
    path = dicom_file(tmp_path / "x.dcm", stored, 12, **modality, **voi)
    file = pydicom.dcmread(path)
    values = apply_modality_lut(stored, file)
    assert np.array_equal(_values(path), values)
    assert np.array_equal(_one(path), np.rint(apply_voi_lut(values, file) / 65535 * 255))
    few = {"VOILUTSequence": _table(8, 12, [0, 4095, 273, 546])}
    path = dicom_file(tmp_path / "y.dcm", stored, 12, **few)
    assert _one(path)[:2, :5].tolist() == [[0, 0, 0, 0, 0], [0, 255, 17, 34, 34]]


def test_padding_has_no_part_in_percentiles(tmp_path: Path) -> None:
    stored = np.arange(1000, 1064, dtype=np.int16).reshape(8, 8)
    stored[0] = -2000
    plain = dicom_file(tmp_path / "x.dcm", stored, 16, PixelPaddingValue=-2000)
    assert sorted(_values(plain)) == list(range(1008, 1064))
    stored[1] = -1990
    ranged = dicom_file(
        tmp_path / "y.dcm", stored, 16, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1980
    )
    assert sorted(_values(ranged)) == list(range(1016, 1064))


def test_an_enhanced_file_has_slopes_and_windows_of_each_frame(tmp_path: Path) -> None:
    """In functional groups: the first of this frame, the second of all frames."""
    stored = np.stack([np.full((4, 4), 100, np.uint16), np.full((4, 4), 200, np.uint16)])
    slopes = [
        item(
            PixelValueTransformationSequence=item(
                RescaleSlope=slope, RescaleIntercept="-50", RescaleType="US"
            )
        )[0]
        for slope in ("1", "2")
    ]
    groups = {
        "PerFrameFunctionalGroupsSequence": slopes,
        "SharedFunctionalGroupsSequence": item(
            FrameVOILUTSequence=item(WindowCenter="200", WindowWidth="401")
        ),
    }
    path = dicom_file(tmp_path / "x.dcm", stored, 12, **groups)
    how = reading(frames="all")
    assert [values[0, 0] for values in pixels.values(path, (0, 1), how)] == [50, 350]
    images = decoded(path, how)  # from -0.5 black to 400 - 0.5 white
    assert [image[0, 0] for image in images] == [round(50.5 * 255 / 400), round(350.5 * 255 / 400)]
    (second,) = pixels.images(path, (1,), how, None)
    assert np.array_equal(second, images[1])


def test_the_patient_is_read_and_a_blank_one_is_unknown(tmp_path: Path) -> None:
    for given, found in (("P-7 ", "P-7"), ("", None), ("  ", None)):
        path = dicom_file(tmp_path / "x.dcm", EIGHT_BITS, 8, PatientID=given)
        assert pixels.head(path, reading()).patient == found


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _edit(**attributes: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        file = pydicom.dcmread(path)
        for name, value in attributes.items():
            setattr(file, name, value)
        file.save_as(path)

    return edit


def _syntax(uid: str) -> Callable[[Path], None]:
    """Claim another transfer syntax than that of `dicom_file`."""
    element, padded = b"\x02\x00\x10\x00UI", uid.encode() + b"\0" * (len(uid) % 2)
    before = element + b"\x14\x00" + b"1.2.840.10008.1.2.1\0"

    def edit(path: Path) -> None:
        content = path.read_bytes()
        assert before in content
        claim = element + len(padded).to_bytes(2, "little") + padded
        path.write_bytes(content.replace(before, claim))

    return edit


def _without(name: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        file = pydicom.dcmread(path)
        delattr(file, name)
        file.save_as(path)

    return edit


@pytest.mark.parametrize(
    ("spoil", "refused"),
    [
        (lambda path: path.write_bytes(b""), "is empty; copy it again or remove it"),
        (lambda path: path.write_text("a note" * 99), "lacks the mark DICM; export it again"),
        (_cut, "is truncated; copy it again or remove it"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:200]),
            "a DICOM file without pixels: a report",
        ),
        (_without("PixelData"), "or the start of a cut one; copy it again or remove it"),
        (_edit(Rows=65535, Columns=65535), "has over 178,956,970 pixels an image; save it smaller"),
        (_edit(Rows=0), "has no pixels"),
        (_edit(NumberOfFrames=2_000_000_000), "is truncated"),
        (_edit(PhotometricInterpretation="HSV"), "has colours of a kind that is not read"),
        (_edit(SamplesPerPixel=3), "has colours of a kind that is not read"),
        (_syntax("1.2.840.10008.1.2.4.100"), "compressed in an unknown way or a video"),  # MPEG-2
        (_syntax(DeflatedExplicitVRLittleEndian), "is a deflated DICOM file; save it uncompressed"),
    ],
)
def test_a_bad_file_is_named_by_what_is_wrong_and_by_nothing_of_its_patient(
    spoil: Callable[[Path], object], refused: str, tmp_path: Path
) -> None:
    path = dicom_file(tmp_path / "planted.dcm", TWELVE_BITS, 12)
    spoil(path)
    with pytest.raises(Unusable, match=refused) as caught:
        pixels.head(path, reading())
    for planted in ("planted", "name"):
        assert planted not in str(caught.value).lower()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("name", ["reportsi.dcm", "rtplan.dcm", "waveform_ecg.dcm", "test-SR.dcm"])
def test_files_without_pixels_are_named_as_such(name: str) -> None:
    with pytest.raises(Unusable, match="is a DICOM file without pixels"):
        pixels.head(real(name), reading())


def test_colour_of_16_bits_and_windows_of_colour_are_refused() -> None:
    with pytest.raises(Unusable, match="over 8 bits a channel in colour; save it as 8-bit colour"):
        pixels.head(real("SC_rgb_rle_16bit.dcm"), reading())
    for window in ("percentile", "40,400"):
        with pytest.raises(Unusable, match="is in colour, and a window is of grey values; choose"):
            pixels.head(real("examples_rgb_color.dcm"), reading(window))


def test_damaged_compressed_pixels_cannot_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    content = real("MR_small_jp2klossless.dcm").read_bytes()
    path.write_bytes(content[:-4000])
    with pytest.raises(Unusable, match="has pixels that cannot be decoded; export it again"):
        decoded(path, reading())


def test_values_that_pydicom_warns_of_stay_off_the_terminal(tmp_path: Path) -> None:
    """Neither warned nor logged, in a program that shows both; and without the extra decoders a
    file that needs them says how to install them."""
    path = dicom_file(tmp_path / "x.dcm", EIGHT_BITS, 8, PatientID="P")
    content = path.read_bytes()
    path.write_bytes(
        content.replace(
            b"\x28\x00\x10\x00US", b"\x28\x00\x08\x00IS\x04\x00PNT\x20\x28\x00\x10\x00US", 1
        )
    )
    shutil.copy(real("JPEGLSNearLossless_08.dcm"), tmp_path / "ls.dcm")
    shutil.copy(real("JPGExtended.dcm"), tmp_path / "12.dcm")
    program = f"""
import logging, sys
logging.basicConfig(level=logging.DEBUG)
sys.modules["pylibjpeg"] = None
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from readings import decoded, reading
for name in ("x", "ls", "12"):
    try:
        decoded(Path({str(tmp_path)!r}) / f"{{name}}.dcm", reading())
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    damaged, *compressed = done.stdout.splitlines()
    assert damaged == "Unusable cannot be read (ValueError); repair or remove it"
    assert len(compressed) == 2
    for line in compressed:
        assert "install more decoders with `uv pip install 'pepr_mlops[dicom]'`" in line
    assert "PNT" not in done.stderr
    assert "Invalid value" not in done.stderr
