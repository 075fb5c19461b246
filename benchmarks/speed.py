"""What the tool costs and how fast it is: measures everything and writes the table.

    python benchmarks/speed.py               # an hour on two cores; nothing else should run
    python benchmarks/speed.py --only start  # one of them
    python benchmarks/speed.py --table       # the table alone, from results/

The table has results of other machines too, which are measured there by hand. Each row of the
table in README.md is a target, what a script measured, and whether that reaches the target;
`results/` has the numbers behind it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

_HERE = Path(__file__).parent
_BEGIN, _END = "<!-- speed.py writes from here -->\n", "<!-- to here -->\n"

Result = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A target and what was measured; `reached` is None where there is no target."""

    what: str
    target: str
    found: str
    reached: bool | None


def _train(r: Result) -> Iterator[Row]:
    targets = {("resnet18d", 64): 1.6, ("mobilenetv2_050", 64): 1.7, ("resnet18d", 224): 2.7}
    for arm, name in (("auto", "fastest setting"), ("fp32", "fp32")):
        for case in r["speed"]:
            fastest = 3.0 if "gpu" in r else targets[case["model"], case["pixels"]]
            target = fastest if arm == "auto" else 1.1
            ratio, (low, high) = case["ratio"][arm], case["ratio_least_greatest"][arm]
            rate = case["images_per_s"]
            yield Row(
                "`pepr train` against a plain loop, evaluation included: "
                f"`{case['model']}`, {case['pixels']} px, {name} ({case['chosen'][arm]})",
                f"≥ {target:g}×",
                f"{ratio:.2f}× ({low:.2f} to {high:.2f} over epochs): {_rate(rate['plain'])} → "
                f"{_rate(rate[arm])} images/s",
                ratio >= target,
            )
    if "learning" not in r:
        return
    of = r["learning"]
    means, spread = of["mean"], of["standard_deviation"]
    both = " and ".join(f"{means[a]:.3f} ± {spread[a]:.3f}" for a in ("plain", "auto"))
    yield Row(
        f"equal learning: test accuracy of the plain loop and of auto, `{of['model']}`, "
        f"{of['epochs']} epochs, {len(of['test_accuracy']['auto'])} seeds",
        "within the spread of the seeds",
        both,
        abs(means["plain"] - means["auto"]) <= max(spread["plain"], spread["auto"]),
    )


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:,.0f}" if images_per_s >= 100 else f"{images_per_s:.3g}"


def _gpu(r: Result) -> Iterator[Row]:
    limit = r["matrix_product_tflop_per_s"]["bf16"]
    for case in r["speed"]:
        name, best = max(case["arms"].items(), key=lambda arm: arm[1].get("images_per_s", 0.0))
        plain = case["arms"]["paper's loop"]
        if len(case["arms"]) < len(r["speed"][0]["arms"]):
            continue  # not all settings were tried in the time there was
        yield Row(
            f"the training loop alone against a plain loop: `{case['model']}`, "
            f"{case['image_size']} px ({name})",
            "≥ 3×",
            f"{best['images_per_s_over_papers']:.1f}×: {_rate(plain['images_per_s'])} → "
            f"{_rate(best['images_per_s'])} images/s, {plain['j_per_image']:.3f} → "
            f"{best['j_per_image']:.3f} J/image; {best['tflop_per_s']:.2g} TFLOP/s, "
            f"{100 * best['tflop_per_s'] / limit:.2g}% of a large product's {limit:.0f}",
            best["images_per_s_over_papers"] >= 3,
        )


def _overhead(r: Result) -> Iterator[Row]:
    for key, name in (("ratio", "time"), ("cpu_ratio", "CPU time")):
        of = r[key]
        # Measuring cannot cost less than nothing: where it seems to, chance moves pairs by more.
        noise = of["low"] < 0.99 and not 1 <= of["high"] <= 1.01
        yield Row(
            f"measuring and logging, on against off: {name}, median of {r['pairs']} pairs",
            "≤ 1%",
            f"{100 * (of['median'] - 1):.1f}% ({100 * (of['low'] - 1):.1f} to "
            f"{100 * (of['high'] - 1):.1f})" + (", noise: inconclusive" if noise else ""),
            None if noise else of["high"] <= 1.01,  # or there are too few pairs
        )
    own_s = r["logging_s_per_epoch"] + r["windows_s_per_epoch"]
    share = own_s / r["off_s"] * r["epochs"]
    yield Row(
        "logging and energy windows alone, in these epochs",
        "≤ 1%",
        f"{100 * share:.2f}%",
        share <= 0.01,
    )
    yield Row(
        "logging an epoch to a server on this machine",
        "≤ 50 ms",
        f"{1000 * r['logging_s_per_epoch']:.0f} ms",
        r["logging_s_per_epoch"] <= 0.05,
    )


def _start(r: Result) -> Iterator[Row]:
    helps = r["help_s"]
    slowest = max(helps, key=helps.get)
    yield Row(
        f"help of {len(helps)} commands",
        "< 0.3 s",
        f"{min(helps.values()):.2f} to {helps[slowest]:.2f} s (`{slowest}`)",
        helps[slowest] < 0.3,
    )
    for store, seconds in r["first_step_s"].items():
        yield Row(
            f"`pepr train` to its first step, {store} SQLite store",
            "< 8 s",
            f"{seconds:.1f} s",
            seconds < 8,
        )
    fixed = r["job_fixed_s"]
    yield Row(
        "overhead of a job around training and evaluation: in a sweep against `mlflow run`",
        "≤ half",
        f"{fixed['sweep']:.1f} s against {fixed['mlflow_run']:.1f}: "
        f"{r['job_ratio_sweep_to_mlflow_run']:.2f}",
        r["job_ratio_sweep_to_mlflow_run"] <= 0.5,
    )
    yield Row(
        "a sweep until its first job starts",
        "",
        f"{r['sweep_begins_s']:.1f} s, once",
        None,
    )
    if "readers" not in r:
        return
    readers = r["readers"]
    for name, ratio in readers["ratio"].items():
        yield Row(
            f"`{name}` of the paper's runs, SQLite, against `import mlflow`",
            f"≤ {readers['at_most'][name]:g}×",
            f"{ratio:.2f}×: {readers['seconds'][name]:.1f} s",
            readers["reached"][name],
        )
    yield Row(
        "`pepr import pepr-paper`, 1,048 runs into SQLite",
        f"≤ {readers['import_at_most_s']:g} s",
        f"{readers['import_s']:.0f} s",
        readers["import_reached"],
    )


def _query(r: Result) -> Iterator[Row]:
    for store, name, target in (("sqlite", "SQLite", 10.0), ("http", "HTTP", 1.0)):
        of = r[store]
        yield Row(
            f"{r['runs']:,} runs into a frame against `mlflow.search_runs`, {name}",
            f"≥ {target:g}×",
            f"{of['ratio']['runs']:.1f}×: {of['load_runs']['seconds']:.1f} s against "
            f"{of['mlflow.search_runs']['seconds']:.1f}; scored, with the evidence of its "
            f"histories, {of['scored']['seconds']:.1f} s",
            of["ratio"]["runs"] >= target,
        )
        again = of.get("scored again")
        again_s = of["scored"]["seconds"] if again is None else again["seconds"]
        yield Row(
            f"the same again, scored, {name}",
            "< 1 s",
            f"{again_s:.2f} s, "
            + (f"{of['load_runs again']['seconds']:.2f} of it to read" if again else "read again"),
            again_s < 1,
        )


def _query_growth(r: Result) -> Iterator[Row]:
    sizes = list(r["sqlite"])
    for arm, name in (("scored", "read and scored"), ("scored again", "the same again")):
        seconds = [r["sqlite"][n][arm]["seconds"] for n in sizes]
        grown = r["growth"]["sqlite"][arm]["ms_per_run"]
        yield Row(
            f"{name}, {' / '.join(f'{int(n):,}' for n in sizes)} runs, SQLite",
            "grows no faster than the number of runs",
            f"{' / '.join(f'{s:.2g}' for s in seconds)} s, time per run at the end {grown:.2f}×",
            grown <= 1.3,
        )


_FIRST_SCREEN_S = {131: 2, 1000: 3}  # by models


def _report(r: Result) -> Iterator[Row]:
    for of in r["pages"]:
        yield Row(
            f"a report of {of['models']:,} models",
            f"first screen < {_FIRST_SCREEN_S[of['models']]} s",
            f"{of['compare_s'] + of['render_s']:.1f} s to make, {of['size_mb']:.1f} MB, "
            f"first screen after {of['first_screen_s']:.1f} s, "
            f"all figures after {of['all_figures_s']:.1f} s",
            of["first_screen_s"] < _FIRST_SCREEN_S[of["models"]],
        )


def _report_growth(r: Result) -> Iterator[Row]:
    pages = r["pages"]
    seconds = [of["compare_s"] + of["render_s"] for of in pages]
    grown = seconds[-1] / seconds[-2] * pages[-2]["runs"] / pages[-1]["runs"]
    runs = " / ".join(f"{of['runs']:,}" for of in pages)
    sizes = " / ".join(f"{of['size_mb']:.1f}" for of in pages)
    yield Row(
        f"a report of {pages[0]['models']} models, {runs} runs",
        "grows no faster than the number of runs",
        f"{' / '.join(f'{s:.1f}' for s in seconds)} s to make, "
        f"{sizes} MB, time per run at the end {grown:.2f}×",
        grown <= 1.3,
    )


def _forecast(r: Result) -> Iterator[Row]:
    names = {"energy": f"{' and '.join(r['energy_source'])} energy", "time": "time"}
    for cost, name in names.items():
        of = r[cost]
        error = of["forecast_median_error"]
        yield Row(
            f"{name} forecast after the first of {r['epochs']} epochs, {len(r['runs'])} runs",
            "within 3% at the median",
            f"off by {100 * error:.1f}%, carbontracker's rule by "
            f"{100 * of['carbontracker_median_error']:.1f}%",
            error <= 0.03,
        )


@dataclass(frozen=True)
class Measured:
    """A script with its arguments, and the rows its result makes; on which machine, if `on` says
    that it is another one."""

    command: str
    rows: Callable[[Result], Iterator[Row]]
    on: str | None = None


_ALL = {
    "train": Measured("train.py", _train),
    "overhead": Measured("overhead.py --pairs 16 --epochs 1 --image-size 32", _overhead),
    "start": Measured("start.py --repeats 3", _start),
    "query": Measured("query.py --runs 10000", _query),
    "query_growth": Measured("query.py --growth 1000,10000,100000 --no-http", _query_growth),
    "report": Measured("report.py", _report),
    "report_growth": Measured(
        "report.py --models 131 --runs 1000 --runs 10000 --runs 100000", _report_growth
    ),
    "forecast": Measured("forecast.py", _forecast),
    "train_epyc": Measured("train.py", _train, "an EPYC without AVX-512"),
    "train_gpu": Measured("train.py --only mobilenetv2_050:64,resnet18d:224", _train, "an H200"),
    "gpu": Measured("gpu.py --parts speed", _gpu, "an H200"),
    "forecast_gpu": Measured("forecast.py --runs 10 --data-root DIR", _forecast, "an H200"),
}
_HERE_TOO = [name for name, of in _ALL.items() if of.on is None]


@click.command()
@click.option("--only", multiple=True, type=click.Choice(_HERE_TOO), help="may be repeated")
@click.option("--table", "table_only", is_flag=True, help="measure nothing")
def main(only: tuple[str, ...], table_only: bool) -> None:
    for name in () if table_only else only or _HERE_TOO:
        script, *arguments = _ALL[name].command.split()
        words = [sys.executable, str(_HERE / script), *arguments, "--out", str(_result(name))]
        click.echo(f"{name}: {' '.join(words[1:])}", err=True)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    path = _HERE / "README.md"
    before, begin, rest = path.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin
    assert end
    path.write_text(f"{before}{begin}{table()}{end}{after}")


def table() -> str:
    """The table in Markdown, from the results that are there."""
    lines = ["| what | target | measured | reached | command |", "| --- | --- | --- | --- | --- |"]
    for name, of in _ALL.items():
        if not _result(name).exists():
            continue
        link = f"`python benchmarks/{of.command}` ([{name}.json](results/{name}.json))"
        for row in of.rows(json.loads(_result(name).read_text())):
            reached = {True: "yes", False: "**no**", None: ""}[row.reached]
            what = row.what if of.on is None else f"{of.on}: {row.what}"
            lines.append(f"| {what} | {row.target} | {row.found} | {reached} | {link} |")
            link = ""
    return "\n".join(lines) + "\n"


def _result(name: str) -> Path:
    return _HERE / "results" / f"{name}.json"


if __name__ == "__main__":
    main()
