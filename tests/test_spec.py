"""The request: defaults, text in and out, and what is refused in which words."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from pepr_mlops.errors import WrongUse
from pepr_mlops.spec import Job, RunSpec


def test_defaults_are_the_papers_protocol() -> None:
    spec = RunSpec()
    assert (spec.dataset, spec.epochs, spec.batch_size, spec.lr) == ("derma", 10, 32, 5e-4)
    assert (spec.image_size, spec.fraction, spec.precision) == (256, 1.0, "fp32")
    assert spec.pretrained
    assert spec.intensities == "unit"
    assert spec.pue == 1.0


def test_a_spec_is_the_same_after_conversion_to_text_and_back() -> None:
    spec = RunSpec(lr=1e-3, weights="w.safetensors", compile=True, budget_s=90.0, country="DNK")
    assert RunSpec.parse(spec.as_params()) == spec
    assert spec.as_params()["budget_wh"] == "none"
    assert spec.as_params()["compile"] == "true"
    assert set(spec.as_params()) == {f.name for f in fields(RunSpec)}


def test_values_as_people_type_them() -> None:
    spec = RunSpec.parse({"lr": "5e-4", "pretrained": "False", "weights": "None", "data_root": ""})
    assert spec.lr == 0.0005
    assert spec.pretrained is False
    assert spec.weights is None
    assert spec.data_root is None


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"modle": "x"}, "modle: no such parameter; did you mean 'model'"),
        ({"lr": "fast"}, "lr: 'fast' is not a number"),
        ({"lr": "nan"}, "lr: 'nan' is not a finite number"),
        ({"lr": "0"}, "lr: '0' is not above 0"),
        ({"epochs": "2.5"}, "epochs: '2.5' is not a whole number"),
        ({"epochs": "0"}, "epochs: '0' is not 1 or more"),
        ({"epochs": ""}, "epochs: '' is not a whole number"),
        ({"batch_size": "1"}, "batch_size: '1' is not 2 or more"),
        ({"fraction": "1.5"}, "fraction: '1.5' is not 1 or less"),
        ({"pretrained": "maybe"}, "pretrained: 'maybe' is not true or false"),
        ({"precision": "fp8"}, "precision: 'fp8' is not one of fp32, tf32, bf16, fp16"),
        ({"size": "65"}, "size: '65' is not one of 28, 64, 128, 224"),
        ({"device": "gpu"}, "device: 'gpu' is not one of auto, cuda, cuda:INDEX, mps, cpu"),
        ({"device": "cuda:x"}, "device: 'cuda:x'"),
        ({"pue": "0.9"}, "pue: '0.9' is not 1 or more"),
        ({"weights": "w.pt", "pretrained": "false"}, "weights: a file of weights excludes"),
        ({"country": "DNK", "carbon_intensity": "100"}, "country: give either country or"),
        ({"budget_wh": "1", "energy": "off"}, "budget_wh: energy=off cannot watch a budget"),
        ({"model": " "}, "model: ' ' stands for no value; give one"),
    ],
)
def test_refusals_name_value_and_choices(raw: dict[str, str], words: str) -> None:
    with pytest.raises(WrongUse) as refused:
        RunSpec.parse(raw)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_wrong_types_are_refused_in_python_too() -> None:
    with pytest.raises(WrongUse, match="epochs: '3' is not a whole number"):
        RunSpec(epochs="3")  # type: ignore[arg-type]
    with pytest.raises(WrongUse, match="epochs: True is not a whole number"):
        RunSpec(epochs=True)


def test_digests_of_jobs_stay_the_same() -> None:
    # `pepr.job` and `pepr.spec` of runs on users' servers are found again by them
    default, small = RunSpec(), RunSpec(model="mobilenetv2_050", dataset="digits", image_size=32)
    assert default.earlier_fingerprint == "3a5cba722b692581"
    assert replace(small, pretrained=False).earlier_fingerprint == "c9955eac0d6dcdd8"
    auto = {"fraction": 1, "carbon_intensity": -0.0, "seed": 7, "precision": "auto"}
    files = {"dataset": "/data/my_scans/", "data_root": "/data", "data_digest": "abc"}
    assert Job(data_digest="abc").fingerprint == "b8755b344aa33527"
    assert Job(**auto, **files, experiment="x").fingerprint == "b71927ab02815172"


def test_experiment_is_the_data_sets_name_unless_named() -> None:
    assert RunSpec().experiment_name == "derma"
    assert RunSpec(dataset="/data/my_scans/").experiment_name == "my_scans"
    assert RunSpec(experiment="trial").experiment_name == "trial"
