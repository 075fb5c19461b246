"""What people write to say what they want: options, sweeps, references, addresses."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import damaged, numbers, stored, texts, toml_values, unless_refused

from pepr_mlops.cli.options import load_reference, question
from pepr_mlops.cli.sweep import read
from pepr_mlops.comparison.pepr import Reference
from pepr_mlops.errors import WrongUse
from pepr_mlops.live import view
from pepr_mlops.report.dashboards import Dashboard
from pepr_mlops.spec import RunSpec, as_text
from pepr_mlops.sweep import plan

NAMES = [f.name for f in fields(RunSpec)]
USUAL = {f.name: as_text(f.default) for f in fields(RunSpec)}

# Options of a training ---------------------------------------------------------------------------


@st.composite
def _options(draw: st.DrawFn) -> dict[str, str]:
    names = draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))
    given_ = {name: draw(texts(USUAL[name], "1", "28", "0.5", "cuda:0")) for name in names}
    if draw(st.integers(0, 9)) == 0:
        given_[draw(texts("modle"))] = draw(texts())
    return given_


@given(_options())
def test_options_are_a_spec_that_can_be_written_down_or_are_refused(
    options: dict[str, str],
) -> None:
    spec = unless_refused(lambda: RunSpec.parse(options))
    if spec is not None:
        again = RunSpec.parse(spec.as_params())
        assert again == spec
        assert again.earlier_fingerprint == spec.earlier_fingerprint
        for f in fields(RunSpec):
            value = getattr(spec, f.name)
            assert not isinstance(value, float) or math.isfinite(value)
        json.dumps(spec.as_params()).encode()


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, 1, 28, 2**63]),
    numbers(),
    texts("none", "cpu"),
)


@given(st.dictionaries(st.sampled_from(NAMES), _VALUES, max_size=3))
def test_specs_made_in_python_come_back_from_text_as_they_are(values: dict[str, Any]) -> None:
    spec = unless_refused(lambda: RunSpec(**values))
    if spec is not None:
        assert RunSpec.parse(spec.as_params()).earlier_fingerprint == spec.earlier_fingerprint
        assert spec == RunSpec.parse(spec.as_params())


# Sweeps ------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.sampled_from(NAMES) | texts("modle"),
        st.lists(texts("a", "1"), max_size=3) | toml_values(),
        max_size=4,
    )
)
def test_a_grid_is_every_combination_once_or_is_refused(grid: dict[str, Any]) -> None:
    specs = unless_refused(lambda: plan.expand(grid))
    if specs is not None:
        assert len(set(specs)) == len(specs) >= 1
        sizes = [len(v) for v in grid.values() if isinstance(v, list)]
        assert len(specs) <= math.prod(sizes)


SWEEP = b"""\
model = ["resnet18d", "mobilenetv2_050"]  # two
fraction = [0.1, 1]
seed = [0, 1, 2]
lr = 5e-4
pretrained = true
dataset = "digits"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


_TOML = st.one_of(
    damaged(SWEEP),
    st.binary(max_size=40),
    st.sampled_from(
        [b"a = " + b"[" * 3000, b"seed = " + b"9" * 5000, b"seed = 0x" + b"f" * 9000, b"a=inf"]
    ),
)


@given(_TOML)
def test_a_file_of_a_sweep_is_a_grid_or_is_refused(folder: Path, content: bytes) -> None:
    (folder / "grid.toml").write_bytes(content)
    grid = unless_refused(lambda: read(folder / "grid.toml"))
    if grid is not None:
        unless_refused(lambda: plan.expand(grid))


# References --------------------------------------------------------------------------------------

REFERENCE = json.dumps(
    {
        "bounds": {"energy_wh": {"low": 1.5, "high": 80.25}},
        "origin": {"comparison_set": "derma", "models": 3, "shared": {"epochs": "10"}},
    },
    indent=1,
).encode()

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400) | texts(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["bounds", "origin", "shared", "low", "high", "E"]), inner
        )
    ),
    max_leaves=8,
)


def _survives_json(reference: Reference | None) -> None:
    if reference is not None:
        for bounds in reference.bounds.values():
            assert 0 <= bounds.low <= bounds.high < math.inf
        assert Reference.from_dict(reference.as_dict()) == reference


@given(_JSON)
def test_json_is_a_reference_or_is_refused(content: Any) -> None:
    _survives_json(unless_refused(lambda: Reference.from_dict(content)))


@given(damaged(REFERENCE) | st.sampled_from([b"[" * 9000, b'{"bounds":' * 9000, b"9" * 5000]))
def test_a_file_is_a_reference_or_is_refused(folder: Path, content: bytes) -> None:
    (folder / "reference.json").write_bytes(content)
    _survives_json(unless_refused(lambda: load_reference(folder / "reference.json")))


# The options of `pepr score` ---------------------------------------------------------------------


@given(
    resources=texts("E", "E,M", "E,M,T"),
    resource_weights=st.none() | texts("0.5,0.5", "1", "0.2,0.3,0.5"),
    alpha=numbers(1, 10),
    quantiles=texts("0.05,0.95", "0,1"),
    energy_error=numbers(0, 1),
    carbon_intensity=st.none() | numbers(0, 900),
    drop=texts("", "busy_cpu", "busy_cpu,paused"),
)
def test_options_are_a_question_or_are_refused(**options: Any) -> None:
    unless_refused(
        lambda: question(
            performance=None, model_param="model", strict=False, country=None, **options
        )
    )


# Addresses of the live page -----------------------------------------------------------------------

_FIELDS = st.dictionaries(
    stored(*view._SETTINGS),
    st.lists(stored("E", "E,M", "0.5", "2", "minmax", "1", "inf", "nan", "-1"), min_size=1),
    max_size=6,
)


@given(_FIELDS)
def test_an_address_is_a_view_with_a_question(fields: dict[str, list[str]]) -> None:
    default = view.View(("derma",))
    found, _ = view.parse(fields, default)
    unless_refused(lambda: found.question(Dashboard(())))  # E and energy_wh are one resource
    assert 0 < found.terms.margin < 1
    again, messages = view.parse(parse_qs(found.address, keep_blank_values=True), default)
    assert messages == []
    assert again == found
    assert found.command("default", None).startswith("pepr report")


# What was found -----------------------------------------------------------------------------------


def test_an_integer_beyond_any_float_is_refused() -> None:
    with pytest.raises(WrongUse, match=r"epochs: .1000.* is not .* or less"):
        RunSpec.parse({"epochs": "1" + "0" * 400})
    with pytest.raises(WrongUse, match=r"lr: 1000.* is not"):
        RunSpec(lr=10**400)


def test_equal_numbers_are_one_job() -> None:
    assert RunSpec(fraction=1).earlier_fingerprint == RunSpec(fraction=1.0).earlier_fingerprint
    assert (
        RunSpec(carbon_intensity=-0.0).earlier_fingerprint
        == RunSpec(carbon_intensity=0).earlier_fingerprint
    )
    assert RunSpec(fraction=1).as_params()["fraction"] == "1.0"


@pytest.mark.parametrize("text", ["none", " None "])
def test_a_text_that_would_be_read_as_no_value_is_refused(text: str) -> None:
    with pytest.raises(WrongUse, match=r"experiment: .* stands for no value"):
        RunSpec(experiment=text)


@pytest.mark.parametrize("text", ["a\0b", "caf\udce9"])
def test_a_text_that_no_server_stores_is_refused(text: str) -> None:
    with pytest.raises(WrongUse, match=r"dataset: .* has a character that cannot be stored"):
        RunSpec(dataset=text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a = " + "[" * 3000, "is not TOML that can be read (nested too deep)"),
        ("seed = " + "9" * 5000, "is not TOML (Exceeds the limit"),
        ("seed = 0x" + "f" * 17, "is not TOML (a whole number of more than 64 bits)"),
    ],
)
def test_toml_that_only_python_would_take_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "grid.toml").write_text(content)
    with pytest.raises(WrongUse) as refused:
        read(tmp_path / "grid.toml")
    assert message in str(refused.value)


def test_more_combinations_than_a_sweep_can_hold_are_refused() -> None:
    grid = {"seed": list(range(1000)), "lr": [1 / n for n in range(1, 1001)]}
    with pytest.raises(WrongUse, match="sweep: 1,000,000 combinations are more than the 100,000"):
        plan.expand(grid)


@pytest.mark.parametrize("bound", [10**400, True, "5"])
def test_a_bound_that_is_no_number_is_no_reference(bound: object) -> None:
    content = {"bounds": {"energy_wh": {"low": 0, "high": bound}}, "origin": {"shared": {}}}
    with pytest.raises(WrongUse, match="this is not a saved reference"):
        Reference.from_dict(content)
