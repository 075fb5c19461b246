"""What does a frugal search find and spend that knows earlier runs and is killed on the way?

    python benchmarks/live_search.py --work DIR --data-root DIR

Three phases, of which `--phase` names one; the same command continues one that was stopped.
`prior` trains small models from scratch on handwritten digits and on drawn spots, images that have
nothing in common with X-rays. `truth` trains them all on PneumoniaMNIST. `search` copies the store
of `prior`, which has no run on X-rays, and searches there for the best models with the options of
`SEARCHES`. SIGKILL hits each search with all its processes twice while it trains, once among the
probes and once later, and the same command resumes it. What each search found and spent is compared
with `truth`. All stores stay in `--work`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from common import machine, write
from PIL import Image

from pepr_mlops.comparison import pepr
from pepr_mlops.tracking import read

MODELS = (
    "lcnet_035,lcnet_050,tf_mobilenetv3_small_minimal_100,mobilenetv3_small_050,mobilenetv2_035,"
    "mobilenetv2_050,mobilenetv4_conv_small_035,mobilevit_xxs,mobilevitv2_050,edgenext_xx_small,"
    "levit_128s,pit_ti_224,vit_tiny_patch16_224,dla46_c,fasternet_t0,regnetx_002,regnety_002,"
    "mnasnet_small,tinynet_e,convnext_atto,resnet10t,resnet18d,ese_vovnet19b_dw,repvgg_a0,xception41"
)
RECIPE = (
    "--no-pretrained --image-size 32 --epochs 10 --batch-size 16 --lr 0.002 "
    "--layout channels_last --threads 1 --device cpu"
)
XRAYS = ["--dataset", "pneumonia", "--size", "28", "--fraction", "0.07"]
MARGIN = 0.01
SEARCHES = {
    "top": ["--top", "1"],
    "within": ["--within", str(MARGIN), "--budget-percent", "30"],
}
PHASES = ("prior", "truth", "search")
SCORES = ["test_P", "test_score", "val_P", "val_score"]


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="folder of the stores")
@click.option("--data-root", type=click.Path(path_type=Path), required=True)
@click.option("--phase", "phases", type=click.Choice(PHASES), multiple=True, default=PHASES)
@click.option("--search", "names", type=click.Choice(list(SEARCHES)), multiple=True)
@click.option("--seed", default=0, help="of the moments to kill at")
@click.option("--out", type=click.Path(path_type=Path))
def main(work: Path, data_root: Path, seed: int, out: Path | None, **chosen: Any) -> None:
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    xrays = [*XRAYS, "--data-root", str(data_root.resolve())]
    if "prior" in chosen["phases"]:
        draw_spots(work / "spots")
        for data in (["digits", "--fraction", "0.35"], [str(work / "spots")]):
            subprocess.run(command(work, "prior", ["--dataset", *data]), check=True, cwd=work)
    if "truth" in chosen["phases"]:
        subprocess.run(command(work, "truth", xrays), check=True, cwd=work)
    if "search" in chosen["phases"]:
        truth = ranked(runs_in(work, "truth"))
        searches = {}
        for name in chosen["names"] or SEARCHES:
            found = killed_twice(work, name, xrays, random.Random(seed))
            searches[name] = found | against(runs_in(work, name), found["winner"], truth)
        models = truth[["energy_wh", "R", *SCORES]].reset_index().to_dict("records")
        write({**machine(), "truth": costs(truth), "searches": searches, "models": models}, out)


def draw_spots(folder: Path) -> None:
    """Images of few or of many blurred spots under noise; with many, they tend to be brighter."""
    if folder.exists():
        return
    part, drawn, (y, x) = folder.with_suffix(".part"), np.random.default_rng(0), np.mgrid[:32, :32]
    shutil.rmtree(part, ignore_errors=True)
    for split, images in (("train", 200), ("val", 50), ("test", 100)):
        for name, mean, light in (("few", 3, 0.33), ("many", 11, 0.41)):
            (part / split / name).mkdir(parents=True)
            for i in range(images):
                image = drawn.normal(drawn.normal(light, 0.08), 0.12, x.shape)
                for _ in range(drawn.poisson(mean)):
                    (cy, cx), radius = drawn.uniform(0, 32, 2), drawn.uniform(1, 2.5)
                    distance = np.hypot(x - cx, y - cy) / radius
                    image += drawn.uniform(0.2, 0.5) * np.exp(-(distance**2) / 2)
                pixels = Image.fromarray(np.clip(image * 255, 0, 255).astype(np.uint8))
                pixels.save(part / split / name / f"{i}.png")
    part.rename(folder)


def runs_in(work: Path, store: str) -> pd.DataFrame:
    """The runs on X-rays."""
    return read.load_jobs(["pneumonia"], tracking_uri=f"sqlite:///{work}/{store}.db")


def command(work: Path, store: str, options: list[str]) -> list[str]:
    words = [sys.executable, "-m", "pepr_mlops", "sweep", "--model", MODELS, *RECIPE.split()]
    words += [*options, "--tracking-uri", f"sqlite:///{work}/{store}.db"]
    return [*words, "--checkpoints", str(work / "checkpoints" / store)]


def killed_twice(work: Path, name: str, xrays: list[str], drawn: random.Random) -> dict[str, Any]:
    """Search in a copy of the store with the earlier runs, again after each of two kills."""
    table, log = work / f"{name}.json", work / f"{name}.log"
    for file in work.glob(f"{name}.*"):
        file.unlink()
    shutil.rmtree(work / "checkpoints" / name, ignore_errors=True)
    shutil.copy(work / "prior.db", work / f"{name}.db")
    search = ["--strategy", "frugal", *SEARCHES[name], "--format", "json"]
    words, kills, began = command(work, name, [*xrays, *search]), [], time.perf_counter()
    for among_probes in (True, False, None):  # None: is not killed
        with table.open("wb") as out, log.open("ab") as err:
            sweep = subprocess.Popen(
                words, stdout=out, stderr=err, cwd=work, start_new_session=True
            )
        probes = drawn.randrange(2, 10)
        while sweep.poll() is None:
            time.sleep(0.5)
            if among_probes is not None and _due(runs_in(work, name), among_probes, probes):
                time.sleep(drawn.uniform(0, 2))
                os.killpg(sweep.pid, signal.SIGKILL)
                sweep.wait()
                kills.append({"s": time.perf_counter() - began, **states(runs_in(work, name))})
        if sweep.returncode != -signal.SIGKILL:
            break
    found = pd.DataFrame(json.loads(table.read_text()))
    return {
        "options": " ".join(search),
        "kills": kills,
        "exit_status": sweep.returncode,
        "wall_s": time.perf_counter() - began,
        "winner": str(found["model"].iloc[0]),
        "models": found["state"].value_counts().to_dict(),
        "stated": log.read_text().splitlines()[-12:],
    }


def _due(runs: pd.DataFrame, among_probes: bool, probes: int) -> bool:
    """Whether so many probes have begun and one runs, or else a training runs that has an epoch."""
    running = runs[runs["status"] == "RUNNING"]
    trains = running["probe"].isna() & running["train_time_s"].notna()
    return len(runs) > probes and running["probe"].notna().any() if among_probes else trains.any()


def ranked(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished runs by model, the best by PePR-E on test first, R as of `pepr score`."""
    truth = runs[runs["status"] == "FINISHED"].set_index("model")
    assert set(truth.index) == {*MODELS.split(",")}, "the phase truth is not complete"
    truth["R"] = pepr.normalise(truth["energy_wh"], pepr.bounds(truth["energy_wh"], "minmax"))
    for split, p in (("test", "performance"), ("val", "metrics.val/accuracy")):
        truth[f"{split}_P"] = truth[p]
        truth[f"{split}_score"] = pepr.pepr(truth[p], truth["R"])
    return truth.sort_values("test_score", ascending=False)


def states(runs: pd.DataFrame) -> dict[str, Any]:
    """How runs ended, and in how many processes."""
    named = (runs["status"] + " " + runs["reason"].fillna("").astype(str)).str.strip()
    processes = int(runs["attempts"].fillna(1).sum())
    return {"runs": named.value_counts().to_dict(), "processes": processes}


def costs(runs: pd.DataFrame) -> dict[str, Any]:
    return {
        "energy_source": sorted(set(runs["energy_source"].dropna())),
        "train_wh": float(runs["energy_wh"].sum()),
        "train_s": float(runs["train_time_s"].sum()),
        "wall_s": (runs["end_time"].max() - runs["start_time"].min()).total_seconds(),
    }


def against(runs: pd.DataFrame, winner: str, truth: pd.DataFrame) -> dict[str, Any]:
    """What a search did, and what it spent and missed next to training all."""
    spent, of, cost = costs(runs), costs(truth), truth["energy_wh"]
    least = {s: cost[truth[s] >= truth[s].max() - MARGIN].min() for s in ("test_P", "val_P")}
    per_job = runs[runs["status"] == "FINISHED"].groupby("spec").size()
    return {
        **states(runs),
        "jobs_finished_twice": int((per_job > 1).sum()),
        "unmeasured_s": float(runs["unmeasured_s"].sum()),
        "spent": spent,
        "share": {name: spent[name] / of[name] for name in ("train_wh", "train_s")},
        "in_truth": {name: float(truth.loc[winner, name]) for name in SCORES},
        "regret": {name: float(truth[name].max() - truth.loc[winner, name]) for name in SCORES},
        "cost_over_the_cheapest_within": {s: float(cost[winner] / c) for s, c in least.items()},
    }


if __name__ == "__main__":
    main()
