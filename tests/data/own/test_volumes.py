"""Slices of NIfTI volumes: real ones that nibabel brings, and made ones."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from readings import decoded, reading

from pepr_mlops.data.own import pixels
from pepr_mlops.data.own.pixels import Unusable

REAL = Path(nib.__file__).parent / "tests" / "data"
MARKED = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def _values(path: Path, **how: int) -> np.ndarray:
    head = pixels.head(path, reading(**how))
    return np.stack(list(pixels.values(path, head.frames, reading(**how))))


def _saved(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", ["anatomical.nii", "functional.nii", "example_nifti2.nii.gz"])
def test_slices_are_those_of_nibabel(name: str, axis: int) -> None:
    """Big-endian, with a slope, and NIfTI-2; all of them have the patient's left first."""
    canonical = nib.as_closest_canonical(nib.load(REAL / name)).get_fdata()
    volume = canonical[..., 0] if canonical.ndim == 4 else canonical
    found = _values(REAL / name, axis=axis)
    assert len(found) == volume.shape[axis]
    for number, values in enumerate(found):
        upright = np.rot90(np.take(volume, number, axis))[:, ::-1]
        assert np.array_equal(values, upright)


@pytest.mark.parametrize(
    ("signs", "axes"), [((1, 1, 1), (0, 1, 2)), ((-1, -1, 1), (0, 1, 2)), ((1, -1, -1), (2, 0, 1))]
)
def test_slices_lie_as_dicom_shows_them_however_the_file_is_oriented(
    signs: tuple[int, ...], axes: tuple[int, ...], tmp_path: Path
) -> None:
    """Of two voxels from left to right, three from posterior to anterior, four from feet to
    head."""
    turned = MARKED[tuple(slice(None, None, sign) for sign in signs)].transpose(axes)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for i, axis in enumerate(axes):
        affine[axis, i] = signs[axis]
    path = _saved(tmp_path / "x.nii", turned, affine)
    axial = _values(path)[0]  # the slice at the feet: anterior on top, the right on the left
    assert axial.tolist() == [[20, 8], [16, 4], [12, 0]]
    coronal = _values(path, axis=1)[0]  # the posterior one: the head on top, the right on the left
    assert coronal.tolist() == [[15, 3], [14, 2], [13, 1], [12, 0]]
    sagittal = _values(path, axis=0)[0]  # of the left: the head on top, anterior on the left
    assert sagittal.tolist() == [[11, 7, 3], [10, 6, 2], [9, 5, 1], [8, 4, 0]]


def test_every_third_slice_is_taken_from_the_first_on() -> None:
    head = pixels.head(REAL / "anatomical.nii", reading(every=3))
    assert head == (tuple(range(0, 25, 3)), True, True, 16, None, "nifti")
    every = _values(REAL / "anatomical.nii")
    assert np.array_equal(_values(REAL / "anatomical.nii", every=3), every[::3])


def test_the_first_of_several_volumes_is_used_and_slices_of_others_are_counted() -> None:
    head = pixels.head(REAL / "functional.nii", reading())  # 20 volumes of 3 slices
    assert (head.frames, head.further) == ((0, 1, 2), 57)


def test_eight_bits_are_shown_as_they_are_unless_they_have_a_slope(tmp_path: Path) -> None:
    plain = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = _saved(tmp_path / "x.nii.gz", plain)
    assert not pixels.head(path, reading()).bounded
    assert decoded(path, reading())[0].tolist() == [[20, 8], [16, 4], [12, 0]]
    image = nib.Nifti1Image(plain, np.eye(4))
    image.header.set_slope_inter(2, -10)
    nib.save(image, path)
    scaled = nib.load(path).get_fdata()
    assert pixels.head(path, reading()).bounded
    assert _values(path).max() == scaled.max()


def test_percentiles_and_windows_are_those_of_the_volume() -> None:
    canonical = nib.as_closest_canonical(nib.load(REAL / "anatomical.nii")).get_fdata()
    low, high = np.percentile(canonical, [0.5, 99.5])
    images = decoded(REAL / "anatomical.nii", reading())
    middle = np.rot90(canonical[..., 12])[:, ::-1]
    expected = np.rint(np.clip((middle - low) * 255 / (high - low), 0, 255))
    assert np.array_equal(images[12], expected)
    with pytest.raises(Unusable, match="no window of its own"):
        pixels.head(REAL / "anatomical.nii", reading("dicom"))


def _claim(shape: tuple[int, ...]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        dimensions = np.array([len(shape), *shape, *[1] * (7 - len(shape))], np.int16)
        content[40:56] = dimensions.tobytes()
        path.write_bytes(content)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "refused"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("note"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "is truncated"),
        (_claim((32767, 32767, 32767)), "has over 178,956,970 pixels an image"),
        (_claim((3000, 3000, 3000)), "is truncated"),
        (_claim((0, 3, 4)), "has no pixels"),
        (_claim((6, 4)), "is no volume of three dimensions"),
        (lambda path: _saved(path, MARKED.astype(np.complex64)), "voxels that are no grey values"),
        (lambda path: _saved(path, np.full((2, 2, 2), np.nan)), "has values that are not finite"),
    ],
)
def test_a_bad_volume_is_named_by_what_is_wrong(
    spoil: Callable[[Path], object], refused: str, tmp_path: Path
) -> None:
    path = _saved(tmp_path / "planted.nii", MARKED)
    spoil(path)
    with pytest.raises(Unusable, match=refused) as caught:
        decoded(path, reading())
    assert "planted" not in str(caught.value)


def test_a_compressed_volume_that_is_cut_or_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    content = (REAL / "example4d.nii.gz").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(Unusable, match="cannot be read"):
        decoded(path, reading())
    _saved(path, np.zeros((2, 2, 2), np.int16))
    plain = tmp_path / "x.nii"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    _claim((9000, 9000, 9000))(plain)
    path.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(Unusable, match="is truncated"):
        pixels.head(path, reading())
