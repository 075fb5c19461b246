"""Every name that a run reports and what it means: metrics, tags, resources, conditions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

COMPONENTS = ("gpu", "cpu", "dram", "soc")  # what energy is read from; the zones never overlap
PHASES = ("train", "eval", "trial")  # a run measures each; a trial of settings comes first
Source = Literal["measured", "estimated", "imported"]  # a component without one was not read
LOST = "lost"  # the source of an energy that is known for a part of the run only

Direction = Literal["higher", "lower"]

# MedMNIST's names for the tasks of data sets.
Task = Literal["multi-class", "binary-class", "ordinal-regression", "multi-label, binary-class"]
MULTI_LABEL: Task = "multi-label, binary-class"
TASKS: tuple[Task, ...] = get_args(Task)

ScoredOn = Literal["val", "test"]  # the split that P is of

PATIENT = "patient"  # the group whose images are no independent observations
GROUP_VALUES = 20  # different values of a subgroup, at most; more may name people
PERFORMANCE = "performance"  # P of PePR: what the tag `pepr.performance` names
COMPLEMENT = "1 - "  # before the name of a metric that is better when lower, as P


@dataclass(frozen=True)
class Metric:
    """One logged quantity. `better` is None for what describes a run without ranking it."""

    name: str
    unit: str
    better: Direction | None
    help: str


_SCORES = {
    "accuracy": "share of images classified correctly (MedMNIST's ACC)",
    "balanced_accuracy": "mean recall over the classes",
    "macro_f1": "mean F1 score over the classes",
    "auc": "area under the ROC curve, one class against the rest, mean over classes (MedMNIST's)",
}

# After the last epoch only. One class against the rest, mean over classes; thresholds are chosen on
# validation.
_CLINICAL: dict[str, tuple[Direction, str]] = {
    "average_precision": ("higher", "area under the precision-recall curve, mean over classes"),
    "sensitivity": ("higher", "share of positive images found, at the validation threshold"),
    "specificity": ("higher", "share of negative images passed, at the validation threshold"),
    "sensitivity_at_90_specificity": ("higher", "greatest sensitivity at a specificity of 0.9"),
    "brier": ("lower", "mean squared error of the probabilities, in [0, 1]"),
    "ece": ("lower", "expected calibration error over 15 equal bins of the confidence"),
}


def _metrics() -> Iterator[Metric]:
    yield Metric(PERFORMANCE, "1", "higher", "P of PePR: the metric that pepr.performance names")
    yield Metric("train/loss", "nat", "lower", "mean loss over the images of the epoch")
    for split in ("val", "test"):
        yield Metric(f"{split}/loss", "nat", "lower", "mean loss over the full split")
        for name, text in _SCORES.items():
            yield Metric(f"{split}/{name}", "1", "higher", text)
        for name, (better, text) in _CLINICAL.items():
            yield Metric(f"{split}/{name}", "1", better, text)
    for name in _SCORES:
        text = f"test {name} after the epoch of highest validation accuracy so far"
        yield Metric(f"best_val/{name}", "1", "higher", text)
    for phase in PHASES:
        text = f"energy of {phase} so far, all components"
        yield Metric(f"energy/{phase}_wh", "Wh", "lower", text)
        for part in COMPONENTS:
            text = f"energy of {phase} so far, {part}"
            yield Metric(f"energy/{phase}_{part}_wh", "Wh", "lower", text)
    for form in FORMS:
        for name, (unit, better, text) in _INFERENCE.items():
            where = "" if form == "inference" else ", as ONNX on the CPU"
            yield Metric(f"{form}/{name}", unit, better, f"{text}{where}")
            yield Metric(
                f"{form}/{name}_cv", "1", None, f"coefficient of variation of {name} over repeats"
            )
    for columns in _OTHERS:
        yield Metric(*columns)


# What `pepr profile` measures, by the form of the model: in PyTorch, and exported as ONNX. The
# large batch is the tag pepr.inference_batch.
FORMS = ("inference", "inference_onnx")
_INFERENCE: dict[str, tuple[str, Direction, str]] = {
    "ms_p50": ("ms", "lower", "median time from one image to its probabilities"),
    "ms_p95": ("ms", "lower", "95th percentile of the time from one image to its probabilities"),
    "images_per_s": ("1/s", "higher", "images classified per second in large batches"),
    "wh_per_image": ("Wh", "lower", "energy to classify an image in large batches"),
    "wh_per_image_b1": ("Wh", "lower", "energy to classify an image alone"),
    "load_s": ("s", "lower", "time from the file of weights, in the disk cache, to the network"),
    "memory_gb": ("GB", "lower", "peak memory, on a GPU reserved there, else of the process"),
}
PROFILED = tuple(f"{form}/{name}" for form in FORMS for name in _INFERENCE)


_OTHERS: tuple[tuple[str, str, Direction | None, str], ...] = (
    ("time/trial_s", "s", "lower", "wall time of the trial of settings"),
    ("time/train_s", "s", "lower", "wall time of training so far"),
    ("time/eval_s", "s", "lower", "wall time of evaluation so far"),
    ("time/setup_s", "s", None, "wall time before training"),
    ("time/last_epoch_s", "s", None, "last epoch with its evaluation, of imported runs"),
    ("time/images_per_s", "1/s", "higher", "training images per second of this epoch"),
    ("memory/allocated_gb", "GB", "lower", "peak allocated on the GPU so far"),
    ("memory/reserved_gb", "GB", "lower", "peak reserved on the GPU so far"),
    ("memory/device_used_gb", "GB", "lower", "highest use of the full GPU seen so far"),
    ("memory/rss_gb", "GB", "lower", "peak resident set of the process so far"),
    ("memory/data_gb", "GB", None, "images stored on the device, part of the peaks above"),
    (
        "forecast/train_wh",
        "Wh",
        "lower",
        "training energy of all epochs, after the first or a probe",
    ),
    ("forecast/train_s", "s", "lower", "training time of all epochs, after the first or a probe"),
    ("forecast/eval_s", "s", "lower", "evaluation time of all epochs, after the first"),
    ("test/top5_accuracy", "1", "higher", "share with the class among the first five"),
    ("inference/ms_per_image", "ms", "lower", "time to classify one image of a batch"),
    ("training/ms_per_image", "ms", "lower", "time to train on one image of a batch"),
    ("inference/gmacs", "GMAC", "lower", "multiply-accumulates to classify an image"),
    ("carbon/train_gco2e", "g", "lower", "training energy times intensity times PUE"),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _metrics()}


def performance_on(split: ScoredOn, tested: str = "test/accuracy") -> str:
    """The metric that is P on this split; on test it is what `pepr.performance` names, `tested`."""
    return PERFORMANCE if split == "test" else f"val/{tested.removeprefix('test/')}"


def memory_metric(device_type: str) -> str:
    """The metric that is M on this kind of device: peak reserved on a GPU, else peak RSS."""
    return "memory/reserved_gb" if device_type == "cuda" else "memory/rss_gb"


@dataclass(frozen=True)
class Doubt:
    """Something doubtful about the images of a run. The value of its tag is a sentence with counts.

    A run is `flagged` in comparisons if the doubt affects P; otherwise it only gets a note.
    """

    tag: str
    flagged: bool
    help: str
    means: str

    @property
    def code(self) -> str:
        """The flag, and the column of the frame of runs."""
        return self.tag.removeprefix("pepr.")

    def text(self, counts: str) -> str:
        """The counts and what they mean."""
        return f"{counts}: {self.means}"


DOUBTS = (
    Doubt(
        *("pepr.data_leak", True, "test images that are also in train"),
        "part of the test set was in the training set",
    ),
    Doubt(
        *("pepr.data_patients", True, "patients in two splits, as allowed"),
        "scores are too good: it was trained or chosen by other images of these patients",
    ),
    Doubt(
        *("pepr.data_conflict", True, "identical images with different labels"),
        "one of the labels is wrong",
    ),
    Doubt(
        *("pepr.data_few", True, "classes with too few test images"),
        "a single image decides the recall of such a class",
    ),
    Doubt(
        "pepr.data_val",
        False,
        "what makes validation less reliable: images of other splits, too few of a class",
        "validation scores are less reliable than they look; test scores are unaffected",
    ),
    Doubt(
        "pepr.data_external",
        False,
        "images and patients of an external set that are also in train or val",
        "the scores on that set are better than on images of other patients; test scores are "
        "unaffected",
    ),
    Doubt(
        *("pepr.data_repeats", False, "images that are more than once in a split"),
        "such images count more than once",
    ),
)

# How the values of a profile came about: of each form tags of its own.
OF_PROFILE = {
    "values": "metrics of the latest profile; others of the form are of an earlier one",
    "when": "when it was measured, in UTC",
    "batch": "images of a large batch",
    "precision": "arithmetic",
    "image_size": "pixels per side",
    "images": "images that were classified",
    "hardware": "GPU, or the CPU where none is used",
    "cpus": "CPUs that the process could use",
    "threads": "CPU threads",
    "gpu_mig": "part of the GPU: MIG profile, share of AMD's partitions, or off",
    "gpu_power_limit_w": "enforced power limit of the GPU in W",
    "gpu_clocks_mhz": "clocks the GPU was set to and its highest, in MHz",
    "energy_source": "measured, estimated or none; lost: known for a part of the windows only",
    "energy_components": "source of each component",
    "energy_model": "power of each component at full load that an estimate assumes",
    "energy_method": "what read or estimated the energy",
    "energy_missing": "why components have no energy",
    "versions": "versions of the libraries",
    "unstable": "values that vary by more than 5% between repeats, or none",
    "disturbed": "which other programs used the machine, or none",
}

# Where a run of a Slurm job ran: columns, and with `pepr.` before them tags.
SLURM = {
    "slurm_job_id": "Slurm job as `squeue` names it, of an array with the task: 123 or 120_4",
    "slurm_array_task": "task of a Slurm array",
    "slurm_partition": "partition of the Slurm job",
    "slurm_nodes": "nodes of the Slurm job",
    "slurm_account": "account that the Slurm job is charged to",
}

# Tags: what a run is compared by, how its numbers came about and how it ended.
TAGS: dict[str, str] = {
    "pepr.experiment": "name the run is compared under",
    "pepr.performance": "the metric that `performance` repeats",
    "pepr.memory": "the metric that is M",
    "pepr.search.*": "of an experiment: what a frugal search believed, found and spent, as JSON",
    "pepr.energy_source": "measured, estimated or none; lost: known for a part of the run only",
    "pepr.energy_components": "source of each component, such as gpu=measured,cpu=measured",
    "pepr.energy_method": "what read or estimated the energy",
    "pepr.energy_model": "power of each component at full load that an estimate assumes",
    "pepr.energy_constant_w": "power in W that an estimate counts whatever the load",
    "pepr.energy_missing": "why components have no energy, or lost it during the run",
    "pepr.weights": "pretrained weights: timm's name of them, or the digest of a file",
    "pepr.energy_caution": "why a measured energy is less exact than usual",
    "pepr.idle_power_w": "power before the run in W, all components; never subtracted",
    "pepr.carbon_intensity_g_per_kwh": "grid intensity used",
    "pepr.carbon_source": "where the intensity is from",
    "pepr.pue": "power usage effectiveness of the building",
    "pepr.reason": "one word for how the run failed",
    "pepr.error": "the line the run failed with",
    "pepr.not_stored": "files and dataset inputs that the server did not accept, and why",
    "pepr.spec": "digest of settings, data and weights: runs that share it are attempts at one job",
    "pepr.data_digest": "digest of the data set as it is stored, before anything is drawn from it",
    "pepr.data_notes": "what was guessed, drawn and passed over when one's own images were read",
    "pepr.model": "digests of the weights that were kept as `model/`, and of its model.json: "
    "last=…,best=…,model=…",
    "pepr.model_missing": "why weights that were to be kept are missing",
    "pepr.keep_top": "option of the sweep that trained the run and may drop its weights",
    "pepr.registered.*": "of a registered version: its run, weights, P, score and cost",
    "pepr.window": "grey values of the training images that became black and white",
    "pepr.resize": "how images are resized, in training and wherever the model is used",
    "pepr.val_images": "images that the val/ metrics are of",
    "pepr.test_images": "images that the test/ metrics are of",
    **{doubt.tag: doubt.help for doubt in DOUBTS},
    "pepr.claim": "wanted or held: which process may do a job that others want to do, too",
    "pepr.process": "machine and process that do the job",
    **{f"pepr.{column}": text for column, text in SLURM.items()},
    "pepr.heartbeat": "last sign of life of that process, ms since 1970",
    "pepr.journal": "journal the run was begun with, which identifies a run that was made twice",
    "pepr.attempts": "how often the training was begun or resumed",
    "pepr.paused_s": "seconds of training in which the process was stopped or its machine slept; "
    "part of no time",
    "pepr.unmeasured_s": "most seconds of interrupted attempts whose cost is in no number",
    "pepr.probe": "steps trained to forecast the cost; the run is no training",
    "pepr.stopped": "the budget that ended the run early, and where",
    "pepr.early_stop": "how many epochs were trained when patience ended the training",
    "pepr.precision": "arithmetic that `precision=auto` chose",
    "pepr.layout": "memory layout that `layout=auto` chose",
    "pepr.launch": "how work is given to the GPU, as `launch=auto` chose",
    "pepr.tried": "ms of a step in each setting tried, and the cost of the trial",
    "pepr.trial": "digest of what a trial depends on: runs that share it train with one choice",
    "pepr.trial_claim": "wanted or held: which run tries the settings for the others",
    "pepr.setting_from": "run that tried the settings which this one trains with",
    "pepr.parameters": "trainable and fixed weights of the model",
    "pepr.device": "torch device used",
    "pepr.hardware": "GPU, or the CPU where none is used",
    "pepr.cpu": "CPU model and its widest vector instructions",
    "pepr.cpu_count": "logical CPUs of the machine",
    "pepr.cpus": "CPUs that the process may use, by affinity, quota and Slurm",
    "pepr.node_share": "that Slurm gave the job a part of the node whose energy counts",
    "pepr.left_running": "processes of a command that ran on after it had ended",
    "pepr.threads": "CPU threads of PyTorch",
    "pepr.cpu_others": "CPUs that other programs kept busy in the busiest attempt, on average",
    "pepr.cpu_others_of": "CPUs on which pepr.cpu_others was counted: those the process may use",
    "pepr.machine_cpu_others": "the same on all CPUs of the machine, which its energy covers",
    "pepr.ram_gb": "memory of the machine (1e9 bytes)",
    "pepr.os": "operating system",
    "pepr.gpu": "GPU model",
    "pepr.gpu_count": "GPUs whose energy counts, where there are several",
    "pepr.gpu_uuid": "GPU as its driver names it",
    "pepr.gpu_driver": "GPU driver version",
    "pepr.gpu_power_limit_w": "enforced power limit of the GPU in W",
    "pepr.gpu_clocks_mhz": "clocks the GPU is set to and its highest, in MHz",
    "pepr.gpu_mig": "part of the GPU: MIG profile, share of AMD's partitions, or off",
    "pepr.gpu_nvml": "why the driver reported nothing",
    "pepr.gpu_other_processes": "other processes on the GPU, or none",
    "pepr.machine_power_limit_w": "most the whole machine can draw in W, of imported runs",
    "pepr.time_source": "estimated where the training time was not measured as such",
    **{
        f"pepr.{form}_{name}": f"{text}, for the metrics {form}/*"
        for form in FORMS
        for name, text in OF_PROFILE.items()
    },
    "pepr.import_doubt": "what makes the energy of an imported run doubtful",
    "pepr.imported_from": "file or publication an imported run was read from",
    "pepr.import_key": "identity of an imported run within that source",
    "pepr.scored.*": "how the metric pepr/* came about: the comparison set and the settings",
    "pepr.git_commit": "commit of pepr_mlops, with + where files were changed",
    "pepr.version.*": "version of Python and of each library",
}


# What runs are scored by and compared on -----------------------------------------------------


@dataclass(frozen=True)
class Resource:
    """A cost of PePR: its letter in the paper, the column of the frame of runs and the metric."""

    letter: str
    column: str
    unit: str
    metric: str | None
    help: str


RESOURCES: dict[str, Resource] = {
    r.letter: r
    for r in (
        Resource("E", "energy_wh", "Wh", "energy/train_wh", "energy of training"),
        Resource("C", "carbon_gco2e", "g", "carbon/train_gco2e", "CO2e of training"),
        Resource("M", "memory_gb", "GB", None, "peak memory"),
        Resource("T", "train_time_s", "s", "time/train_s", "wall time of training"),
        Resource("D", "fraction", "1", None, "share of the training set"),
    )
}

LIFETIME = "lifetime_wh"  # energy of training and use (`comparison.lifetime`), in Wh
_LIFETIME_HELP = "energy of training and use"


def resource_help(name: str) -> str:
    """A resource in words; a metric is its own name."""
    return (
        _LIFETIME_HELP if name == LIFETIME else RESOURCES[name].help if name in RESOURCES else name
    )


ENERGY = ("energy_wh", "carbon_gco2e")  # the costs that are only as good as the energy

# The machine, and how much of it a run may use: the columns of their tags.
HARDWARE = ("hardware", "cpus", "threads", "gpu_mig", "gpu_power_limit_w", "gpu_clocks_mhz")

# What costs must share to add up, or to be forecast one from another.
ENERGY_OF = ("energy_components", "energy_model", "energy_cpu")
MEASURED_BY = (*HARDWARE, *ENERGY_OF)
# What profiles must share to be compared, after the name of the form: `inference_batch`.
PROFILED_BY = ("batch", "precision", *HARDWARE, "energy_components", "energy_model")

# What the runs of one comparison set share: each of these changes cost or performance.
COMPARED = (
    "dataset",
    "size",
    "data_digest",
    "fraction",
    "image_size",
    "channels",
    "intensities",
    "frames",
    "window",
    "axis",
    "every",
    "fit",
    "uncertain",
    "folds",
    "epochs",
    "batch_size",
    "lr",
    "optimizer",
    "weight_decay",
    "schedule",
    "warmup",
    "class_weights",
    "augment",
    "patience",
    "tune",
    "precision",
    "layout",
    "launch",
    "compile",
    "deterministic",
    "pretrained",
    *HARDWARE,
    "performance_metric",
)
