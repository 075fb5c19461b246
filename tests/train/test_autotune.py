"""The trial of arithmetic and layout: what it chooses, and that it leaves no trace but its tags."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from zeus.utils.testing import ReplayZeusMonitor

from pepr_mlops import RunSpec, comparison, data
from pepr_mlops.errors import Paused, WorkFailed, WrongUse
from pepr_mlops.names import METRICS
from pepr_mlops.sweep import forecasts, plan, search
from pepr_mlops.tracking import read
from pepr_mlops.train import autotune, models, trainer
from pepr_mlops.train.job import run

CPU = torch.device("cpu")
PLAIN = ("fp32", "contiguous", "kernels")
LAST, HALF = ("fp32", "channels_last", "kernels"), ("bf16", "contiguous", "kernels")


def _spec(shapes: Path, **fields: object) -> RunSpec:
    given = {
        **{"dataset": str(shapes), "image_size": 32, "epochs": 2, "batch_size": 8},
        **{"model": "test_resnet", "pretrained": False, "device": "cpu", "energy": "off"},
        **fields,
    }
    return RunSpec.parse({name: str(value).lower() for name, value in given.items()})


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "_BLOCK_S", 0.0)
    monkeypatch.setattr(autotune, "_ENOUGH_S", 0.0)


def test_the_fastest_is_chosen_turn_by_turn() -> None:
    # The machine became three times as slow after the first turn: the means would mislead.
    drifting = {PLAIN: [1.0, 3.0, 3.0], LAST: [0.9, 2.7, 2.7], HALF: [1.2, 3.6, 3.6]}
    assert autotune.chosen(drifting) == (LAST, [])


def test_a_gain_that_may_be_chance_is_ignored() -> None:
    assert autotune.chosen({PLAIN: [1.0, 1.0, 1.0], LAST: [0.98, 0.98, 0.98]}) == (PLAIN, [])
    assert autotune.chosen({PLAIN: [1.0, 1.0, 1.0], LAST: [0.96, 0.96, 0.96]}) == (LAST, [])
    # Twice as fast once, in the turn in which the first was held up, is nothing.
    assert autotune.chosen({PLAIN: [2.0, 1.0, 1.0], LAST: [1.0, 1.01, 1.02]}) == (PLAIN, [])


def test_runs_share_a_choice_where_all_that_decides_the_time_of_a_step_is_the_same(
    shapes: Path,
) -> None:
    spec = _spec(shapes, precision="auto")
    splits = data.load(spec)
    mine = autotune.key(spec, splits, "AMD EPYC, 2 CPUs, 2 threads")
    for same in ({"seed": 3}, {"epochs": 9}, {"lr": 0.1}):
        spec_of_it = dataclasses.replace(spec, **same)
        assert autotune.key(spec_of_it, splits, "AMD EPYC, 2 CPUs, 2 threads") == mine
    others = [
        autotune.key(spec, splits, "AMD EPYC, 1 CPUs, 1 threads"),
        autotune.key(spec, dataclasses.replace(splits, channels=3), "AMD EPYC, 2 CPUs, 2 threads"),
        *(
            autotune.key(dataclasses.replace(spec, **of), splits, "AMD EPYC, 2 CPUs, 2 threads")
            for of in (
                *({"model": "resnet10t"}, {"image_size": 64}, {"batch_size": 4}),
                *({"layout": "auto"}, {"experiment": "other"}, {"deterministic": True}),
            )
        ),
    ]
    assert len({mine, *others}) == 1 + len(others)


def test_noisy_times_choose_the_default() -> None:
    """As on a busy machine, where four of six seeds took bf16 and two fp32."""
    noisy = {PLAIN: [1.0, 1.0, 0.5, 1.0, 1.0], HALF: [0.6, 0.7, 0.8, 0.6, 0.7]}
    assert autotune.chosen(noisy) == (PLAIN, [HALF])
    # It is clear that a half is faster, and not whether its layout matters.
    last_half = ("bf16", "channels_last", "kernels")
    both = {PLAIN: [1.0] * 3, HALF: [0.6, 0.5, 0.6], last_half: [0.5, 0.55, 0.5]}
    assert autotune.chosen(both) == (HALF, [last_half])


def test_a_setting_far_behind_is_tried_three_times_and_no_more() -> None:
    called = {PLAIN: 0, LAST: 0, HALF: 0}

    def taking(setting: autotune.Setting, step_s: float) -> Callable[[int], float]:
        def steps(n: int) -> float:
            called[setting] += n
            return n * step_s

        return steps

    step_s = autotune.compare(
        {PLAIN: taking(PLAIN, 0.05), LAST: taking(LAST, 0.04), HALF: taking(HALF, 2.0)}, {}
    )
    assert len(step_s[HALF]) == 3
    # Blocks are of 0.1 s or more, that is 2 and 3 steps; the first timing was one step of each.
    turns = len(step_s[PLAIN])
    assert (called[PLAIN], called[LAST], called[HALF]) == (1 + 2 * turns, 1 + 3 * turns, 1 + 3)
    assert step_s[LAST] == pytest.approx([0.04] * turns)
    # Enough are 5 turns and 4 s: 3 turns of 0.1 + 0.12 + 2 s and one without the last do not.
    assert turns == 5


def test_only_arithmetic_that_the_hardware_has_is_tried(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = _spec(shapes, precision="auto", layout="auto")
    gpu = torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert [p for p, *_ in autotune.settings(auto, gpu)] == [
        *("fp32", "fp32", "tf32", "tf32", "bf16", "bf16")
    ]
    launched = _spec(shapes, launch="auto")
    assert autotune.settings(launched, gpu) == [PLAIN, ("fp32", "contiguous", "graph")]
    both = _spec(shapes, launch="auto", layout="auto")
    assert autotune.settings(both, gpu) == [
        *(PLAIN, ("fp32", "contiguous", "graph"), ("fp32", "channels_last", "graph"))
    ]
    assert autotune.settings(launched, CPU) == [PLAIN]  # there is nothing to launch
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert {p for p, *_ in autotune.settings(auto, gpu)} == {"fp32", "fp16"}
    assert autotune.settings(_spec(shapes, layout="auto"), CPU) == [PLAIN, LAST]
    flags = Path("/proc/cpuinfo").read_text().split() if sys.platform == "linux" else []
    if "avx2" in flags:  # of this kind of CPU, AVX-512 is what bf16 needs
        expected = {"fp32", "bf16"} if "avx512bw" in flags else {"fp32"}
        assert {p for p, *_ in autotune.settings(auto, CPU)} == expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert {p for p, *_ in autotune.settings(auto, CPU)} == {"fp32"}


def test_auto_trains_as_its_choice_by_name_would(
    store: str, shapes: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        autotune, "chosen", lambda step_s: (("bf16", "channels_last", "kernels"), [])
    )
    monkeypatch.setattr(autotune, "_precisions", lambda device: ["fp32", "bf16"])
    auto = run(_spec(shapes, precision="auto", layout="auto"))
    named = run(_spec(shapes, precision="bf16", layout="channels_last"))
    other = run(_spec(shapes))
    for name in ("train/loss", "val/loss", "test/loss"):
        assert auto.result.metrics[name] == named.result.metrics[name]
        assert auto.result.metrics[name] != other.result.metrics[name]
    client = MlflowClient()
    tags = client.get_run(auto.run.run_id).data.tags
    assert (tags["pepr.precision"], tags["pepr.layout"]) == ("bf16", "channels_last")
    for setting in ("fp32 contiguous", "fp32 channels_last", "bf16 contiguous"):
        assert f"{setting} " in tags["pepr.tried"]
    assert client.get_run(auto.run.run_id).data.params["precision"] == "auto"
    assert "pepr.precision" not in client.get_run(named.run.run_id).data.tags

    runs = read.load_runs("shapes").set_index("run_id")
    columns = ["precision", "layout"]
    assert runs.loc[auto.run.run_id, columns].tolist() == ["bf16", "channels_last"]
    of_two = runs.reset_index().query("run_id != @named.run.run_id")
    question = comparison.Question(resources=("train_time_s",), draws=0)
    with pytest.raises(
        WrongUse, match=r"mixes precision, layout .*precision=bf16, layout=channels_last: 1 run"
    ):
        comparison.prepare(of_two, question)


def test_seeds_of_a_model_train_with_the_choice_of_the_first(
    store: str, shapes: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fastest, tried = autotune.fastest, []

    def counted(*given: object) -> tuple[RunSpec, str]:
        tried.append(given)
        return fastest(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(autotune, "fastest", counted)
    monkeypatch.setattr(autotune, "chosen", lambda step_s: (LAST, []))
    first = run(_spec(shapes, layout="auto", epochs=1))
    monkeypatch.setattr(autotune, "chosen", lambda step_s: (PLAIN, []))  # a busier moment
    seeds = [run(_spec(shapes, layout="auto", epochs=1, seed=seed)) for seed in (1, 2)]
    assert len(tried) == 1
    client = MlflowClient()
    for other in seeds:
        tags = client.get_run(other.run.run_id).data.tags
        assert tags["pepr.layout"] == "channels_last"
        assert tags["pepr.setting_from"] == first.run.run_id
        assert "pepr.tried" not in tags
        assert "time/trial_s" not in other.result.metrics
    scored = comparison.compare(
        read.load_runs("shapes"), comparison.Question(resources=("train_time_s",), draws=0)
    )
    assert scored.scores["n"].tolist() == [3]
    # other images per step, another experiment and an offline run decide for themselves
    others: list[dict[str, object]] = [{"batch_size": 4}, {"experiment": "other"}]
    for fields in others:
        run(_spec(shapes, layout="auto", epochs=1, **fields))
    run(_spec(shapes, layout="auto", epochs=1, seed=3), offline=True)
    assert len(tried) == 4


def test_a_trial_that_decides_nothing_says_so(
    shapes: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotune, "chosen", lambda step_s: (PLAIN, [LAST]))
    spec = _spec(shapes, layout="auto")
    chosen, report = autotune.fastest(spec, data.load(spec), CPU)
    assert chosen.layout == "contiguous"
    assert report.endswith("for 8 images; too noisy to decide on fp32 channels_last")


def test_a_resumed_training_uses_the_setting_it_began_with(
    store: str, shapes: Path, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(shapes, layout="auto")
    monkeypatch.setattr(autotune, "chosen", lambda step_s: (LAST, []))
    with pytest.raises(Paused):
        run(spec, checkpoints=tmp_path / "checkpoints", until=1)
    monkeypatch.setattr(autotune, "fastest", lambda *given: pytest.fail("it tries again"))
    trained: list[str] = []
    prepare = trainer.prepare

    def prepared(spec: RunSpec, device: torch.device) -> None:
        trained.append(spec.layout)
        prepare(spec, device)

    monkeypatch.setattr(trainer, "prepare", prepared)
    run(spec, checkpoints=tmp_path / "checkpoints")
    assert trained == ["channels_last"]


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a GPU's windows take the joules of a recording, in this order."""

    def play(*windows: tuple[str, float]) -> None:
        recording = tmp_path / "recorded.csv"
        rows = [f"{i}.0,{name},1.0,{joules}" for i, (name, joules) in enumerate(windows)]
        head = "start_time,window_name,elapsed_time,gpu0_energy"
        recording.write_text("\n".join([head, *rows, ""]))
        monitor = ReplayZeusMonitor(log_file=recording, ignore_sync_execution=True)
        monkeypatch.setattr(
            "pepr_mlops.costs.meters.find_sensors", lambda uuids, host: (monitor, ("gpu",), {})
        )

    return play


def test_the_cost_of_a_trial_is_logged_apart_from_that_of_training(
    store: str, shapes: Path, short: None, recorded: Callable[..., None]
) -> None:
    epoch = (("train", 1800.0), ("eval", 90.0))
    recorded(("idle", 5.0), ("trial", 360.0), *epoch, *epoch)
    outcome = run(_spec(shapes, layout="auto", energy="measured", batch_size=32))
    logged = MlflowClient().get_run(outcome.run.run_id)
    costs = logged.data.metrics
    assert costs["energy/trial_wh"] == costs["energy/trial_gpu_wh"] == pytest.approx(0.1)
    assert costs["energy/train_wh"] == pytest.approx(1.0)
    assert 0 < costs["time/trial_s"] < costs["time/setup_s"]
    assert set(costs) <= set(METRICS)
    assert "energy 0.1 Wh (measured)" in logged.data.tags["pepr.tried"]
    runs = read.load_runs("shapes")
    assert plan.spent_wh(runs).tolist() == pytest.approx([1.15])


def test_a_trial_is_no_part_of_a_trainings_own_budget(
    store: str, shapes: Path, short: None, recorded: Callable[..., None]
) -> None:
    parts = (
        ("train", 1800.0),
        ("train+1", 0.5),
        ("eval", 90.0),
    )  # the budget is checked at the end
    recorded(("idle", 5.0), ("trial", 3600.0), *parts, *parts)
    outcome = run(_spec(shapes, layout="auto", energy="measured", batch_size=32, budget_wh=1.5))
    assert outcome.result.stopped is None
    assert outcome.result.metrics["energy/train_wh"] == pytest.approx(1.0, rel=1e-3)


def test_the_energy_of_a_failed_trial_is_logged(
    store: str,
    shapes: Path,
    short: None,
    recorded: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded(("idle", 5.0), ("trial", 360.0))
    monkeypatch.setattr(autotune, "fastest", lambda *given: _out_of_memory())
    with pytest.raises(WorkFailed, match="out of memory"):
        run(_spec(shapes, layout="auto", energy="measured", batch_size=32))
    (run_,) = MlflowClient().search_runs(["1"])
    assert run_.data.metrics["energy/trial_wh"] == pytest.approx(0.1)
    assert run_.data.tags["pepr.reason"] == "out_of_memory"


def test_a_trial_counts_against_the_budget_of_a_sweep(
    store: str, shapes: Path, tmp_path: Path, short: None, recorded: Callable[..., None]
) -> None:
    epoch = (("train", 1800.0), ("eval", 90.0))
    recorded(("idle", 5.0), ("trial", 360.0), *epoch, *epoch)
    with pytest.raises(Paused):  # 0.1 Wh and 0.525 of the first epoch reach it, 0.525 do not
        run(
            _spec(shapes, layout="auto", energy="measured", batch_size=32),
            checkpoints=tmp_path / "checkpoints",
            left_wh=0.6,
        )
    runs = read.load_runs("shapes")
    assert plan.spent_wh(runs).tolist() == pytest.approx([0.625])


def _out_of_memory() -> float:
    raise WorkFailed("memory: out of memory", reason="out_of_memory")


def test_a_setting_that_runs_out_of_memory_is_not_chosen(
    shapes: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = trainer.Trainer.train_on

    def short_of_memory(self: trainer.Trainer, order: list[torch.Tensor]) -> int:
        if self.train._layout == torch.contiguous_format:
            raise torch.OutOfMemoryError("4 GB")
        return step(self, order)

    monkeypatch.setattr(trainer.Trainer, "train_on", short_of_memory)
    spec = _spec(shapes, layout="auto")
    chosen, report = autotune.fastest(spec, data.load(spec), CPU)
    assert chosen == dataclasses.replace(spec, layout="channels_last")
    assert "fp32 contiguous out_of_memory" in report
    left = {PLAIN: lambda n: n * 0.5, LAST: lambda n: _out_of_memory()}
    impossible: dict[autotune.Setting, WorkFailed] = {}
    assert list(autotune.compare(left, impossible)) == [PLAIN]
    assert list(impossible) == [LAST]
    plain = _spec(shapes, layout="contiguous", precision="auto")
    monkeypatch.setattr(autotune, "_precisions", lambda device: ["fp32"])
    with pytest.raises(WorkFailed, match="out of memory before the first epoch"):
        autotune.fastest(plain, data.load(plain), CPU)


def test_where_auto_has_no_place(shapes: Path) -> None:
    with pytest.raises(WrongUse, match=r"compile: a trial .* name all three"):
        _spec(shapes, layout="auto", compile=True)
    with pytest.raises(WrongUse, match="layout: auto may choose differently for each model"):
        search.check([_spec(shapes, layout="auto")], "T")


def test_a_forecast_of_auto_is_of_runs_that_chose_themselves(
    store: str, shapes: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotune, "chosen", lambda step_s: (LAST, []))
    outcome = run(_spec(shapes, layout="auto", seed=1))
    runs = read.load_jobs(["shapes"])
    parameters = {"test_resnet": models.count_parameters("test_resnet")}
    layouts = ("auto", "channels_last", "contiguous")
    requested = data.identify_all([_spec(shapes, layout=name) for name in layouts])
    expected = forecasts.forecast(requested, runs, parameters)["time_s"]
    took_s = outcome.result.metrics["time/train_s"]
    assert expected.tolist()[:2] == pytest.approx([took_s, took_s])
    assert expected.isna().tolist() == [False, False, True]


def test_a_step_that_cannot_be_a_graph_is_tried_kernel_by_kernel(
    shapes: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(shapes, layout="auto", launch="auto")
    graphs = [("fp32", "contiguous", "graph"), ("fp32", "channels_last", "graph")]
    every = {"auto": [PLAIN, *graphs], "graph": graphs, "kernels": [PLAIN, LAST]}
    monkeypatch.setattr(autotune, "settings", lambda spec, device: list(every[spec.launch]))

    def steps(spec: RunSpec, *_: object) -> autotune.Steps:
        if spec.launch == "graph":
            raise WorkFailed("launch: a step cannot be recorded", reason="graph_failed")
        return lambda n: n * (0.1 if spec.layout == "channels_last" else 0.2)

    monkeypatch.setattr(autotune, "_steps", steps)
    chosen, report = autotune.fastest(spec, data.load(spec), CPU)
    assert chosen == dataclasses.replace(spec, layout="channels_last", launch="kernels")
    assert report == (
        "fp32 contiguous 200 ms, fp32 channels_last 100 ms, fp32 contiguous graph graph_failed "
        "for 8 images"
    )
    with pytest.raises(WorkFailed, match="a step cannot be recorded"):
        autotune.fastest(_spec(shapes, layout="auto", launch="graph"), data.load(spec), CPU)
