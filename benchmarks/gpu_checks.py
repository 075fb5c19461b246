"""Does a training job on an NVIDIA GPU do what the documentation says of it?

    python benchmarks/gpu_checks.py --data-root DIR

Runs `pepr train` and `pepr sweep` on PneumoniaMNIST (real X-rays) in processes of their own, looks
at what MLflow then has, and prints what was found. Most jobs run side by side, since only what they
compute is checked; the first, and what concerns the whole device, has the GPU alone.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import pynvml
from common import machine, write

MODELS = ("resnet18d", "vit_tiny_patch16_224")
ARITHMETIC: dict[str, dict[str, Any]] = {
    "fp32": {},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "channels_last": {"layout": "channels_last"},
    "bf16 channels_last": {"precision": "bf16", "layout": "channels_last"},
    "compile": {"compile": True},
    "tf32 compile": {"precision": "tf32", "compile": True},
    "bf16 compile": {"precision": "bf16", "layout": "channels_last", "compile": True},
    "deterministic": {"deterministic": True},
    "deterministic again": {"deterministic": True},
    "deterministic bf16": {"deterministic": True, "precision": "bf16"},
    "deterministic bf16 again": {"deterministic": True, "precision": "bf16"},
    "host memory, deterministic": {"deterministic": True, "host_memory": True},
    "graph": {"launch": "graph"},
    "bf16 graph": {"precision": "bf16", "layout": "channels_last", "launch": "graph"},
    "graph, deterministic": {"deterministic": True, "launch": "graph"},
}
COMPILED = [name for name in ARITHMETIC if "compile" in name]

# A job as another program runs it; `host_memory` is as if the images did not fit on the GPU.
JOB = """
import json, pathlib, sys
fields = json.loads(sys.argv[1])
from pepr_mlops.train import loop as train
from pepr_mlops.train.job import run
from pepr_mlops.train.progress import Printed
from pepr_mlops.spec import RunSpec
if fields.pop("host_memory", False):
    train.fits = lambda splits, device: False
uri, checkpoints = fields.pop("tracking_uri"), fields.pop("checkpoints", None)
run(RunSpec(**fields), tracking_uri=uri, progress=Printed,
    checkpoints=checkpoints and pathlib.Path(checkpoints))
"""

# How far fp32 operations are from double precision, after `prepare`.
ROUNDING = """
import json, sys, torch
from pepr_mlops.train import loop as train
from pepr_mlops.spec import RunSpec
device = torch.device("cuda:0")
found = {}
for precision in ("fp32", "tf32"):
    train.prepare(RunSpec(precision=precision), device)
    x, w = torch.randn(8, 64, 32, 32, device=device), torch.randn(64, 64, 3, 3, device=device)
    a, b = torch.randn(512, 512, device=device), torch.randn(512, 512, device=device)
    for name, of in (("convolution", lambda t: torch.conv2d(t(x), t(w))),
                     ("product", lambda t: t(a) @ t(b))):
        exact, got = of(lambda v: v.double()), of(lambda v: v).double()
        found[f"{precision} {name}"] = float((got - exact).norm() / exact.norm())
print(json.dumps(found))
"""

# A process of someone else that has the GPU for a while, and of its memory all but so many bytes.
OTHER = """
import sys, time, torch
held = [torch.zeros(1, device="cuda")]
left = int(sys.argv[2])
while left and (free := torch.cuda.mem_get_info()[0]) > left + 2**25:
    held.append(torch.empty(free - left, dtype=torch.uint8, device="cuda"))
print("ready", flush=True)
time.sleep(float(sys.argv[1]))
"""


class Checks:
    """Everything lies in `folder`; `found` has what each check came to."""

    def __init__(
        self, data_root: Path, folder: Path, device: str, fraction: float, out: Path | None
    ) -> None:
        self.fields: dict[str, Any] = {
            "model": "resnet18d",
            "dataset": "pneumonia",
            "data_root": str(data_root.resolve()),
            "size": 28,
            "image_size": 64,
            "fraction": fraction,
            "epochs": 2,
            "pretrained": False,
            "device": device,
        }
        self.folder, self.out = folder, out
        self.found: dict[str, Any] = {}
        self.started = time.perf_counter()
        self.empty = folder / "empty.db"
        from pepr_mlops import tracking

        tracking.prepare(["pneumonia"], f"sqlite:///{self.empty}")

    def check(self, name: str, of: Callable[[], Mapping[str, Any]]) -> None:
        started = time.perf_counter()
        try:
            self.found[name] = dict(of())
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1].lineno
            self.found[name] = {"ok": False, "error": f"{type(error).__name__} ({last}): {error}"}
        took_s = time.perf_counter() - started
        good = self.found[name].get("ok")
        at_s = time.perf_counter() - self.started
        print(f"{at_s:5.0f} s: {name}: {good} ({took_s:.0f} s)", file=sys.stderr, flush=True)
        if self.out is not None:  # what there is, should the time run out
            self.out.with_suffix(".part").write_text(json.dumps(dict(self.found), indent=1))

    # Running ------------------------------------------------------------------------------------

    def uri(self, name: str) -> str:
        path = self.folder / f"{name.replace(' ', '_').replace(',', '')}.db"
        if not path.exists():
            shutil.copy(self.empty, path)
        return f"sqlite:///{path}"

    def start(
        self, command: list[str], name: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A process that writes to the file `name.log`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **(env or {})},
            )

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def train(self, name: str, **changed: Any) -> subprocess.Popen[bytes]:
        """`pepr train`, as a person starts it; `env` are environment variables."""
        env = changed.pop("env", None)
        words = [sys.executable, "-m", "pepr_mlops", "train", "--tracking-uri", self.uri(name)]
        return self.start(words + options({**self.fields, **changed}), name, env)

    def job(self, name: str, store: str | None = None, **changed: Any) -> subprocess.Popen[bytes]:
        fields = {**self.fields, **changed, "tracking_uri": self.uri(store or name)}
        return self.start([sys.executable, "-c", JOB, json.dumps(fields)], name)

    def other(self, seconds: float, left: int = 0) -> subprocess.Popen[bytes]:
        name = f"other {seconds:g} {left}"
        process = self.start([sys.executable, "-c", OTHER, str(seconds), str(left)], name)
        self.until(process, lambda: "ready" in self.log(name))
        return process

    def until(self, process: subprocess.Popen[bytes], seen: Callable[[], bool]) -> None:
        for _ in range(1200):
            if seen():
                return
            if process.poll() is not None:
                raise RuntimeError(f"the process ended with {process.returncode}")
            time.sleep(0.05)
        raise RuntimeError("nothing happened in a minute")

    def last(self, name: str, store: str | None = None) -> dict[str, Any]:
        """The run of a store with one run."""
        (run,) = self.runs(store or name)
        return run

    def runs(self, name: str) -> list[dict[str, Any]]:
        from mlflow import MlflowClient

        client = MlflowClient(self.uri(name))
        where = [e.experiment_id for e in client.search_experiments()]
        return [
            {
                "id": run.info.run_id,
                "status": run.info.status,
                "from_s": run.info.start_time / 1000,
                "to_s": (run.info.end_time or 0) / 1000,
                "metrics": run.data.metrics,
                "tags": {k: v for k, v in run.data.tags.items() if k.startswith("pepr.")},
                "artifacts": run.info.artifact_uri,
            }
            for run in client.search_runs(where)
        ]

    # The checks ---------------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """One job alone on the GPU: tags, energy and memory."""
        name = "plain"
        status = self.train(
            name, energy="measured", epochs=4, country="DNK", env={"CUDA_VISIBLE_DEVICES": "0"}
        ).wait()
        run = self.last(name)
        m, t = run["metrics"], run["tags"]
        tags = {k: v for k, v in t.items() if not k.startswith(("pepr.git", "pepr.process"))}
        power_w = m["energy/train_gpu_wh"] * 3600 / m["time/train_s"]
        checks = {
            "finished": status == 0 and run["status"] == "FINISHED",
            "measured": t["pepr.energy_source"] == "measured",
            "gpu is read": t["pepr.energy_components"].startswith("gpu=measured"),
            "alone": t["pepr.gpu_other_processes"] == "none",
            "reserved >= allocated": m["memory/reserved_gb"] >= m["memory/allocated_gb"] > 0,
            "device used >= reserved": m["memory/device_used_gb"] >= m["memory/reserved_gb"],
            "M is reserved": t["pepr.memory"] == "memory/reserved_gb",
            "images are resident": m["memory/data_gb"] > 0,
            "power is between idle and limit": float(t["pepr.idle_power_w"])
            < power_w
            < float(t["pepr.gpu_power_limit_w"]),
            "learned": m["test/auc"] > 0.9,
        }
        text = self.log(name).replace(str(self.folder), "")
        return {
            "ok": all(checks.values()),
            "checks": checks,
            "mean_train_power_w": power_w,
            "metrics": m,
            "tags": tags,
            "printed": text.splitlines()[-14:],
        }

    def arithmetic(self, model: str, name: str) -> dict[str, Any]:
        store = f"{model} {name}"
        changed = {"image_size": 64} | ARITHMETIC[name]
        status = self.job(store, model=model, **changed).wait()
        run = self.last(store)
        m = run["metrics"]
        good = status == 0 and run["status"] == "FINISHED"
        good = good and m["memory/reserved_gb"] >= m["memory/allocated_gb"]
        found = {
            "ok": good,
            "status": run["status"],
            "images_per_s": m.get("time/images_per_s"),
            "scores": scores(m),
        }
        if not good:
            found |= {"printed": self.log(store)[-1500:], "tags": run["tags"]}
        return found

    def equal(self, model: str, one: str, two: str) -> dict[str, Any]:
        """Whether two runs came to the same numbers, to the last bit."""
        a, b = self.last(f"{model} {one}"), self.last(f"{model} {two}")
        return same(a, b)

    def rounding(self) -> dict[str, Any]:
        done = subprocess.run([sys.executable, "-c", ROUNDING], capture_output=True, text=True)
        error = json.loads(done.stdout)
        fine = [error[f"fp32 {of}"] < 1e-5 for of in ("convolution", "product")]
        coarse = [1e-5 < error[f"tf32 {of}"] < 2e-3 for of in ("convolution", "product")]
        return {"ok": all(fine + coarse), "relative_error": error}

    def killed(self, model: str) -> dict[str, Any]:
        """A run that is killed in the third epoch and resumed, against one that is not stopped."""
        same_spec = {"model": model, "epochs": 3, "deterministic": True}
        name, checkpoints = f"killed {model}", str(self.folder / f"checkpoints {model}")
        first = self.job(name, checkpoints=checkpoints, **same_spec)
        unbroken = self.job(f"unbroken {model}", **same_spec)
        self.until(first, lambda: "epoch 2/3" in self.log(name))
        time.sleep(0.3)
        first.send_signal(signal.SIGKILL)
        killed_at = time.perf_counter()
        first.wait()
        while first.pid in on_gpu():
            time.sleep(0.01)
        gone_s = time.perf_counter() - killed_at
        left = self.last(name)["status"]
        again = self.job(name, checkpoints=checkpoints, **same_spec).wait()
        unbroken.wait()
        a, b = self.last(name), self.last(f"unbroken {model}")
        found = same(a, b)
        found["ok"] = found["ok"] and again == 0 and left == "RUNNING"
        return {
            **found,
            "off_the_gpu_after_s": gone_s,
            "attempts": a["tags"].get("pepr.attempts"),
            "unmeasured_s": a["tags"].get("pepr.unmeasured_s"),
            "printed": [
                x
                for x in self.log(name).splitlines()
                if "resumes after" in x or "starts again" in x
            ],
        }

    def terminated(self) -> dict[str, Any]:
        name = "terminated"
        process = self.train(name, epochs=50)
        self.until(process, lambda: "epoch 1/" in self.log(name))
        process.terminate()
        status = process.wait()
        run = self.last(name)
        return {
            "ok": run["status"] == "KILLED" and "energy/train_wh" in run["metrics"],
            "exit_status": status,
            "status": run["status"],
            "reason": run["tags"].get("pepr.reason"),
            "train_s": run["metrics"].get("time/train_s"),
            "last_line": self.log(name).splitlines()[-1][:300],
        }

    def named(self, uuid: str) -> dict[str, Any]:
        """CUDA_VISIBLE_DEVICES has the name of the GPU and not its number."""
        name = "by uuid"
        env = {"CUDA_VISIBLE_DEVICES": uuid}
        status = self.train(name, env=env, energy="measured").wait()
        run = self.last(name)
        good = status == 0 and run["tags"]["pepr.energy_source"] == "measured"
        return {"ok": good and run["metrics"]["energy/train_gpu_wh"] > 0, "status": run["status"]}

    def refused(self, name: str, words: str, env: Mapping[str, str], **changed: Any) -> Any:
        """Exit status 2 with one line that has these words."""
        status = self.train(name, env=env, **changed).wait()
        printed = self.log(name).strip()
        return {
            "ok": status == 2 and words in printed and "Traceback" not in printed,
            "printed": printed,
        }

    def out_of_memory(self) -> dict[str, Any]:
        name = "out of memory"
        status = self.train(name, model="resnet50", image_size=1024, batch_size=1024).wait()
        run = self.last(name)
        m, t = run["metrics"], run["tags"]
        text = self.log(name)
        return {
            "ok": status == 1
            and run["status"] == "FAILED"
            and t.get("pepr.reason") == "out_of_memory"
            and m.get("energy/train_wh", 0) > 0
            and "Traceback" not in text,
            "exit_status": status,
            "status": run["status"],
            "reason": t.get("pepr.reason"),
            "metrics": m,
            "printed": text[-700:],
        }

    def full(self, left: int) -> dict[str, Any]:
        """Another process has all but `left` bytes."""
        other = self.other(60, left)
        name = f"full {left}"
        try:
            status = self.train(name, batch_size=2048, image_size=128).wait()
        finally:
            other.kill()
            other.wait()
        runs = self.runs(name)
        printed = self.log(name)
        reason = runs[0]["tags"].get("pepr.reason") if runs else None
        good = status == 1 and "Traceback" not in printed and reason in (None, "out_of_memory")
        return {"ok": good, "exit_status": status, "reason": reason, "printed": printed[-1500:]}

    def sweeps(self) -> dict[str, Any]:
        """Two sweeps on one store while a foreign process has the GPU."""
        name = "sweeps"
        busy_s = 18.0
        other = self.other(busy_s)
        until = time.time() + busy_s
        fields = {**self.fields, "tracking_uri": self.uri(name)}
        fields["pretrained"] = "false"
        words = [sys.executable, "-m", "pepr_mlops", "sweep"]
        words += [w for k, v in fields.items() for w in ("--" + k.replace("_", "-"), str(v))]
        words += ["--checkpoints", str(self.folder / "checkpoints")]
        both = [
            self.start([*words, "--seed", "0,1"], "sweep 1"),
            self.start([*words, "--seed", "2"], "sweep 2"),
        ]
        other.wait()
        freed = time.time()
        until_s = time.monotonic() + 75
        while time.monotonic() < until_s and any(process.poll() is None for process in both):
            time.sleep(0.1)
        status = [process.poll() for process in both]
        for process in both:
            process.terminate()
            process.wait()
        runs = sorted(self.runs(name), key=lambda run: run["from_s"])
        apart = [b["from_s"] >= a["to_s"] for a, b in itertools.pairwise(runs)]
        logs = list((self.folder / "checkpoints").rglob("*.log"))
        waited = sorted({x[:60] for f in logs for x in f.read_text().splitlines() if "wait" in x})
        return {
            "ok": status == [0, 0]
            and len(runs) == 3
            and all(run["status"] == "FINISHED" for run in runs)
            and all(apart)
            and runs[0]["from_s"] >= min(until, freed) - 1.0,
            "exit_status": status,
            "one_after_the_other": apart,
            "began_after_the_other_left_s": runs[0]["from_s"] - freed if runs else None,
            "others": [run["tags"].get("pepr.gpu_other_processes") for run in runs],
            "waited": waited,
            "statuses": [run["status"] for run in runs],
            "printed": self.log("sweep 1")[-600:],
        }


def options(fields: Mapping[str, Any]) -> list[str]:
    words = []
    for key, value in fields.items():
        flag = key.replace("_", "-")
        words += (
            [f"--{'' if value else 'no-'}{flag}"]
            if isinstance(value, bool)
            else [
                f"--{flag}",
                str(value),
            ]
        )
    return words


def scores(metrics: Mapping[str, float]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if k.startswith(("train/", "val/", "test/"))}


def same(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    from mlflow.artifacts import download_artifacts

    drawn = []
    for run in (a, b):
        path = download_artifacts(f"{run['artifacts']}/predictions.npz")
        with np.load(path) as file:
            drawn.append({key: file[key] for key in file.files if key != "classes"})
    arrays = all(np.array_equal(drawn[0][key], drawn[1][key]) for key in drawn[0])
    one, two = scores(a["metrics"]), scores(b["metrics"])
    off = {key: [one[key], two.get(key)] for key in one if one[key] != two.get(key)}
    return {"ok": not off and arrays and len(one) > 5, "differ": off, "predictions": arrays}


def on_gpu() -> list[int]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    return [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), required=True)
@click.option("--device", default="cuda", help="cpu: only to try the script")
@click.option("--fraction", default=1.0, help="of the training set")
@click.option("--only", default="", help="words, with commas between; checks whose name has one")
@click.option("--out", type=click.Path(path_type=Path))
def main(data_root: Path, device: str, fraction: float, only: str, out: Path | None) -> None:
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
    words = [word for word in only.split(",") if word]

    def chosen(name: str) -> bool:
        return not words or any(word in name for word in words)

    with tempfile.TemporaryDirectory() as name:
        checks = Checks(data_root, Path(name), device, fraction, out)
        if chosen("plain"):
            checks.check("plain", checks.plain)
        in_parallel: dict[str, Callable[[], Mapping[str, Any]]] = {}
        for model in MODELS:
            in_parallel |= {
                f"{model}: {of}": lambda model=model, of=of: checks.arithmetic(model, of)
                for of in sorted(ARITHMETIC, key=lambda of: of not in COMPILED)
            }
            in_parallel[f"{model}: killed and continued"] = lambda model=model: checks.killed(model)
        in_parallel["rounding"] = checks.rounding
        in_parallel["terminated"] = checks.terminated
        uuid = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        with suppress(pynvml.NVMLError):
            uuid = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0))
        in_parallel["GPU by UUID"] = lambda: checks.named(uuid)
        in_parallel["no GPU visible"] = lambda: checks.refused(
            "invisible", "was not found", {"CUDA_VISIBLE_DEVICES": ""}
        )
        with ThreadPoolExecutor(max(2, (psutil.cpu_count() or 2) - 4)) as pool:
            for what, of in in_parallel.items():
                if chosen(what):
                    pool.submit(checks.check, what, of)
        for model in MODELS:
            for one in ("deterministic", "deterministic bf16"):
                two = f"{one} again"
                if chosen(f"{model}: {one}") and chosen(f"{model}: {two}"):
                    checks.check(
                        f"{model}: {one} twice", lambda m=model, o=one, t=two: checks.equal(m, o, t)
                    )
            for what, of in (("images in host memory", "host memory"), ("as a graph", "graph")):
                other = f"{of}, deterministic"
                if chosen(f"{model}: deterministic") and chosen(f"{model}: {other}"):
                    checks.check(
                        f"{model}: {what}",
                        lambda m=model, o=other: checks.equal(m, "deterministic", o),
                    )
        if chosen("sweeps"):
            checks.check("sweeps", checks.sweeps)
        if chosen("out of memory"):
            checks.check("out of memory", checks.out_of_memory)
        for mib in (200, 1200):
            if chosen("full"):
                checks.check(f"full but for {mib} MiB", lambda n=mib: checks.full(n << 20))
        good = sum(bool(of.get("ok")) for of in checks.found.values())
        result = {
            **machine(),
            "checks": len(checks.found),
            "held": good,
            "failed": [name for name, of in checks.found.items() if not of.get("ok")],
            "wall_s": time.perf_counter() - checks.started,
            "found": checks.found,
        }
        write(result, out)


if __name__ == "__main__":
    main()
