"""Images in DICOM files.

No message quotes an attribute or an error of pydicom, since both may identify the patient.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from pepr_mlops.data.own import window
from pepr_mlops.data.own.reading import Contents, Frame, Reading, Unusable, Values, check_size
from pepr_mlops.data.splits import Pixels

# Warnings quote values. Once for all: a filter for the time of a call is not safe in threads.
warnings.filterwarnings("ignore", module="pydicom")
for _name in ("pydicom", "pylibjpeg"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

_TAGS: list[Any] = [
    *("PatientID", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(
        f"{kind}{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
]
_GREY, _PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_SAMPLES = {**dict.fromkeys((*_GREY, _PALETTE), 1), **dict.fromkeys(_COLOUR, 3)}
# What programs write into PatientID to remove it: many patients share it, or it is blank.
_NOBODY = {"", "anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "n/a", "na"}
_LEAST = 8  # bytes of a compressed frame: those of the tag and length before it


def contents(path: Path, reading: Reading) -> Contents:
    header = _header(path)
    count = _frames(header)
    taken = {"first": (0,), "middle": (count // 2,), "all": tuple(range(count))}[reading.frames]
    grey = header.PhotometricInterpretation in _GREY
    patient = str(header.get("PatientID") or "").strip()
    return Contents(
        taken,
        count - len(taken),
        grey,
        deep=grey and any(_white(header, frame) is None for frame in taken),
        windowed=grey and all(_own(header, frame) for frame in taken),
        patient=None if patient.casefold() in _NOBODY else patient,
    )


def frames(path: Path, numbers: Sequence[int], reading: Reading) -> Iterator[Frame]:
    header = _header(path)
    photometric = header.PhotometricInterpretation
    for number, stored in zip(numbers, _stored(path, numbers, header), strict=True):
        if photometric == _PALETTE:
            yield Frame(_coloured(stored, header))
        elif photometric in _COLOUR:
            yield Frame(stored)
        else:
            yield Frame(
                _rescaled(stored, header, number),
                _white(header, number),
                _own(header, number),
                inverted=photometric == "MONOCHROME1",
                padding=_padding(stored, header),
            )


def _header(path: Path) -> pydicom.Dataset:
    """What comes before the pixels, checked before anything is decoded."""
    with path.open("rb") as file:
        try:
            meta = pydicom.filereader.read_file_meta_info(path)
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                # pydicom would inflate all of it to read the header, to a thousand times its size.
                raise Unusable("is a deflated DICOM file; save it uncompressed")
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        except InvalidDicomError:
            raise Unusable(
                "is not a DICOM file as it lacks the mark DICM; export it again or remove it"
            ) from None
        length = path.stat().st_size - file.tell()  # of the pixels
        if "Rows" not in header or "Columns" not in header or length <= 0:
            raise Unusable(
                "is a DICOM file without pixels: a report, a plan or the start of a cut one; "
                "copy it again or remove it"
            )
    check_size(header.Rows, header.Columns)
    _check_kind(header)
    _check_length(header, length)
    return header


def _check_kind(header: pydicom.Dataset) -> None:
    """Raise `Unusable` for pixels that are neither grey nor 8-bit colour."""
    photometric, samples = header.get("PhotometricInterpretation"), header.get("SamplesPerPixel", 1)
    if samples != _SAMPLES.get(photometric):
        raise Unusable("has colours of a kind that is not read; save it as grey or RGB")
    if photometric in _COLOUR and header.BitsAllocated > 8:
        raise Unusable("has over 8 bits a channel in colour; save it as 8-bit colour, or as grey")


def _check_length(header: pydicom.Dataset, length: int) -> None:
    """Raise `Unusable` where pixels of `length` bytes cannot be as many as the header claims."""
    bits = _LEAST * 8
    if not _decoder(header).is_encapsulated:
        subsampled = header.PhotometricInterpretation == "YBR_FULL_422"
        samples = 2 if subsampled else header.get("SamplesPerPixel", 1)
        bits = header.Rows * header.Columns * samples * header.BitsAllocated
    if _frames(header) * bits > length * 8:
        raise Unusable("is truncated; copy it again or remove it")


def _decoder(header: pydicom.Dataset) -> Decoder:
    """The decoder of the pixels. Raises `Unusable` where there is none."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    try:
        decoder = get_decoder(UID(syntax or ""))
    except (NotImplementedError, ValueError):
        raise Unusable(
            "has pixels that are compressed in an unknown way or a video; save them uncompressed"
        ) from None
    if not decoder.is_available:
        raise _undecodable(decoder)
    return decoder


def _undecodable(decoder: Decoder) -> Unusable:
    if decoder.is_encapsulated and find_spec("pylibjpeg") is None:
        return Unusable(
            "has compressed pixels that cannot be decoded here; install more decoders with "
            "`uv pip install 'pepr_mlops[dicom]'`, or save it uncompressed"
        )
    return Unusable("has pixels that cannot be decoded; export it again or remove it")


def _frames(header: pydicom.Dataset) -> int:
    return max(1, int(header.get("NumberOfFrames") or 1))


def _stored(path: Path, numbers: Sequence[int], header: pydicom.Dataset) -> Iterator[Values]:
    """The stored values of frames, decoded one by one; YBR as RGB."""
    try:
        yield from iter_pixels(_source(path, header), indices=numbers)
    except MemoryError:
        raise
    except Exception:  # the decoders raise any error on damaged files
        raise _undecodable(_decoder(header)) from None


def _source(path: Path, header: pydicom.Dataset) -> Path | pydicom.Dataset:
    """The file, from which single frames are read, or all of it in memory: only `dcmread` notices
    where implicit value representations are claimed to be explicit, or the other way round."""
    start = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Rows"])
    rows: Any = start.get_item("Rows")
    claimed = header.file_meta.TransferSyntaxUID.is_implicit_VR
    return path if rows.is_implicit_VR == claimed else pydicom.dcmread(path)


def _part(header: pydicom.Dataset, frame: int, name: str) -> pydicom.Dataset:
    """Where the attributes of a functional group of a frame are: in its own, in that of all frames,
    or, in files without such groups, in the header itself."""
    for groups, place in (
        ("PerFrameFunctionalGroupsSequence", frame),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        items = header.get(groups) or []
        if place < len(items) and items[place].get(name):
            part: pydicom.Dataset = items[place].get(name)[0]
            return part
    return header


def _rescaled(stored: Values, header: pydicom.Dataset, frame: int) -> Values:
    """The values in the unit of the scanner, such as Hounsfield's."""
    part = _part(header, frame, "PixelValueTransformationSequence")
    if tables := part.get("ModalityLUTSequence"):
        return _mapped(stored, tables[0], header)
    slope, intercept = _line(part)
    if (slope, intercept) == (1, 0):
        return stored
    return stored.astype(np.float64) * slope + intercept


def _line(part: pydicom.Dataset) -> tuple[float, float]:
    slope, intercept = part.get("RescaleSlope"), part.get("RescaleIntercept")
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def _white(header: pydicom.Dataset, frame: int) -> int | None:
    """The largest value of plain pixels of at most 8 bits, None of others."""
    part = _part(header, frame, "PixelValueTransformationSequence")
    bits = header.get("BitsStored") or header.BitsAllocated
    rescaled = part.get("ModalityLUTSequence") or _line(part) != (1, 0)
    return None if bits > 8 or header.get("PixelRepresentation") or rescaled else 2**bits - 1


def _own(header: pydicom.Dataset, frame: int) -> Callable[[Values], Pixels] | None:
    """The first window that the file has for a frame, a table before a function; None without, and
    of one that PS3.3, C.11.2, does not allow."""
    part = _part(header, frame, "FrameVOILUTSequence")
    for table in (part.get("VOILUTSequence") or [])[:1]:
        if table.get("LUTDescriptor") and table.get("LUTData"):
            return partial(_tabled, table=table, header=header)
    function = window.FUNCTIONS.get(str(part.get("VOILUTFunction") or "LINEAR").upper())
    centre, width = (_first(part.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if function is None or centre is None or width is None or not function.is_width(width):
        return None
    return lambda values: function.apply(values, centre, width)


def _first(value: Any) -> float | None:
    """The first of one or several numbers, None without any that is finite."""
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return float(value) if value not in (None, "") and math.isfinite(value) else None


def _tabled(values: Values, table: pydicom.Dataset, header: pydicom.Dataset) -> Pixels:
    return window.between(_mapped(values, table, header), 0, 2 ** table.LUTDescriptor[2] - 1)


def _mapped(values: Values, table: pydicom.Dataset, header: pydicom.Dataset) -> Values:
    """The entries of a table (PS3.3, C.11.1.1.1 and C.11.2.1.1) for values.

    pydicom's `apply_modality_lut` and `apply_voi_lut` fail for some depths of entries.
    """
    entries, first, _ = table.LUTDescriptor
    data = table.LUTData
    if isinstance(data, bytes):
        order = "<" if header.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, "u1" if len(data) <= (entries or 2**16) else f"{order}u2")
    found: Values = np.atleast_1d(np.asarray(data))
    places = np.clip(np.rint(values.astype(np.float64)) - first, 0, len(found) - 1)
    entry: Values = found[places.astype(np.int64)]
    return entry


def _coloured(stored: Values, header: pydicom.Dataset) -> Pixels:
    """The colours of a palette; of entries of 16 bits the upper 8."""
    entries, first, depth = header.RedPaletteColorLookupTableDescriptor
    # pydicom would wrap values beyond a palette of 8-bit entries.
    inside = np.clip(stored.astype(np.int64), first, first + (entries or 2**16) - 1)
    colours: Values = apply_color_lut(inside, header)[..., :3]
    return np.asarray(colours >> max(0, depth - 8), np.uint8)


def _padding(stored: Values, header: pydicom.Dataset) -> npt.NDArray[np.bool_] | None:
    """The pixels that only fill the rectangle (PS3.3, C.7.5.1.1.2), None without any declared."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return None
    # Some files declare -2000 as the unsigned 63536.
    ends = np.array([value, header.get("PixelPaddingRangeLimit", value)]).astype(stored.dtype)
    low, high = sorted(ends)
    return np.asarray((stored >= low) & (stored <= high))
