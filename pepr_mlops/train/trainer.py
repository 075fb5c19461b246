"""One network on one device: steps of training, and evaluation.

Inside an epoch nothing waits for the device, except for the check of the losses twice a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pepr_mlops.comparison.metrics import Floats, Ints, scores
from pepr_mlops.costs.forecast import Cost, Mark, steady_steps, usual_cost
from pepr_mlops.costs.memory import keep_freed
from pepr_mlops.costs.recorder import Recorder
from pepr_mlops.data.batches import Batches, fits
from pepr_mlops.data.splits import Splits
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.names import MULTI_LABEL
from pepr_mlops.spec import NONE, TRIED, RunSpec
from pepr_mlops.train import head, recipe
from pepr_mlops.train.augment import Augmentation
from pepr_mlops.train.budget import Budget
from pepr_mlops.train.cuda_graphs import Graphs
from pepr_mlops.train.failures import explained
from pepr_mlops.train.progress import Silent

if TYPE_CHECKING:
    from pepr_mlops.train.cuda_graphs import Pool

_CHECK_EVERY_S = 0.5
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_device(spec: RunSpec, device: torch.device) -> None:
    """Raise `WrongUse` unless the device has the requested precision and launch."""
    gpu = device.type == "cuda"
    ampere = gpu and torch.cuda.get_device_capability(device) >= (8, 0)
    if spec.precision == "tf32" and not ampere:
        raise WrongUse(
            "precision: tf32 needs an NVIDIA GPU of the Ampere generation or newer, and the job "
            f"runs on {device}; use fp32, bf16 or fp16"
        )
    if spec.precision == "bf16" and gpu and not ampere:
        raise WrongUse(f"precision: {device} has no hardware for bf16; use fp32 or fp16")
    if spec.launch == "graph" and not gpu:
        raise WrongUse(
            f"launch: graph needs an NVIDIA GPU, and the job runs on {device}; use kernels"
        )


def open_device(spec: RunSpec, device: torch.device) -> None:
    """Make it torch's current device, before anything runs on it. Raises `WorkFailed` where other
    programs use its memory."""
    if device.type == "cuda":
        with explained(spec, 0):  # others may leave too little memory even for that
            torch.cuda.set_device(device)  # or pinning memory would wake the first GPU


def prepare(spec: RunSpec, device: torch.device) -> None:
    """Set torch's precision of fp32 operations, determinism and seed for this process.

    Call it before the network is built, with the precision and layout settled. fp32 means IEEE
    single precision throughout: torch's own default lets convolutions use TF32.
    """
    assert not spec.untried
    if spec.deterministic:  # cuBLAS reads it when it starts; elsewhere it would change the memory
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    precision = "tf32" if spec.precision == "tf32" else "ieee"
    backends: Any = torch.backends  # its types lack the precisions
    # The older flag first, which has to agree, or torch refuses to export a model later.
    backends.cudnn.allow_tf32 = precision == "tf32"
    # Some versions of torch do not pass the first one on to the others.
    for backend in (backends, backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
        backend.fp32_precision = precision
    torch.use_deterministic_algorithms(spec.deterministic)
    torch.manual_seed(spec.seed)
    if device.type == "cpu":
        keep_freed()


@dataclass(frozen=True)
class Evaluation:
    """The loss and the scores of a split, and its predictions as in `metrics.scores`."""

    scores: dict[str, float]
    labels: Ints
    probabilities: Floats


class Trainer:
    """The network, its optimiser and the data on the device.

    CUDA graphs take their memory from `pool`, by default one of their own; trainings that share one
    must not run at the same time.
    """

    def __init__(
        self,
        spec: RunSpec,
        splits: Splits,
        network: torch.nn.Module,
        device: torch.device,
        pool: Pool | None = None,
    ) -> None:
        layout = torch.channels_last if spec.layout == "channels_last" else torch.contiguous_format
        self._spec, self._device, self._task = spec, device, splits.task
        self._augmentation: Augmentation | None = None
        if spec.augment != NONE:
            self._augmentation = Augmentation(spec.augment, spec.seed)
        self._options = self._options_of(splits, network, layout)
        parts = (
            Batches(splits.train, splits, **self._options, augment=self._augmentation),
            Batches(splits.val, splits, **self._options),
            Batches(splits.test, splits, **self._options),
        )
        self.train: Batches | head.Features
        self.val: Batches | head.Features
        self.test: Batches | head.Features
        self.train, self.val, self.test = parts
        on_gpu = fits(splits, device) and device.type != "cpu"
        self.resident_bytes = sum(part.images.nbytes for part in parts) if on_gpu else None
        network = network.to(device).to(memory_format=layout)
        self._weights = trained = network
        if spec.tune == "head":
            trained = self._tune_head(*parts)
        # The order of the images depends on the seed alone, not on what the model drew before.
        self._shuffle = torch.Generator().manual_seed(spec.seed)
        graphs = spec.launch == "graph"
        self._optimiser = recipe.optimiser(spec, trained.parameters(), device, graphs=graphs)
        self._scaler = torch.amp.GradScaler(device.type, enabled=spec.precision == "fp16")
        self._criterion, self._evaluated = recipe.losses(spec, splits, device)
        self._network: Any = torch.compile(trained) if spec.compile else trained
        self._step: Callable[..., torch.Tensor] = self._train_step
        self._output: Callable[..., torch.Tensor] = self._predict
        if graphs:
            pool = pool or torch.cuda.graph_pool_handle()
            self._step = Graphs(self._train_step, device, pool)
            self._output = Graphs(self._predict, device, pool)
        self.steps = len(self.train.order(spec.batch_size, None))

    def _options_of(
        self, splits: Splits, network: torch.nn.Module, layout: torch.memory_format
    ) -> dict[str, Any]:
        """How `Batches` places and prepares the images of all splits."""
        described: Any = network.pretrained_cfg
        pretrained = self._spec.intensities == "pretrained"
        return {
            "image_size": self._spec.image_size,
            "device": self._device,
            "resident": fits(splits, self._device),
            "layout": layout,
            "normalise": _normalisation(described, splits.channels, self._device)
            if pretrained
            else None,
        }

    def evaluate_external(self, splits: Splits, epoch: int) -> dict[str, Evaluation]:
        """The evaluations of the external sets, whose images stay off the device, where they would
        count in the peak memory."""
        found = {}
        for name, split in splits.external.items():
            part: Batches | head.Features
            part = Batches(split, splits, **{**self._options, "resident": False})
            if self._spec.tune == "head":
                part = head.Features(part, self._features, self._spec.batch_size, once=False)
            found[name] = self.evaluate(part, epoch, f"external set {name}")
        return found

    def _tune_head(self, train: Batches, val: Batches, test: Batches) -> torch.nn.Module:
        """Replace images by features of the frozen network; returns the classifier, to train."""
        size = self._spec.batch_size
        example, _ = next(val.take([torch.arange(min(2, len(val)))]))
        classifier = head.split(self._weights, self._spec.model, example)
        changing = self._augmentation is not None
        self.train = head.Features(train, self._features, size, once=not changing)
        self.val, self.test = (head.Features(part, self._features, size) for part in (val, test))
        return classifier

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), self._autocast():
            return head.features(self._weights, x)

    def compute_features(self, *parts: Batches | head.Features) -> None:
        """Compute what is stored of the images of these splits; with tune=all that is nothing."""
        for part in parts:
            if isinstance(part, head.Features):
                part.compute()

    def state(self) -> dict[str, Any]:
        """What `restore` takes to continue as if never interrupted."""
        on_gpu = self._device.type == "cuda"
        return {
            **{name: getattr(self._spec, name) for name in TRIED},
            "network": self._weights.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "shuffle": self._shuffle.get_state(),
            **self._random_of_images(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self._device) if on_gpu else None,
        }

    def _random_of_images(self) -> dict[str, torch.Tensor]:
        found = self._augmentation
        return {} if found is None else {"augmentation": found.generator.get_state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._weights.load_state_dict(state["network"])
        settings = {name: self._optimiser.defaults[name] for name in ("lr", "fused", "capturable")}
        groups = [{**group, **settings} for group in state["optimiser"]["param_groups"]]
        self._optimiser.load_state_dict({**state["optimiser"], "param_groups": groups})
        self._scaler.load_state_dict(state["scaler"])
        self._shuffle.set_state(state["shuffle"])
        if self._augmentation is not None:
            self._augmentation.generator.set_state(state["augmentation"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self._device)

    def train_on(self, order: list[torch.Tensor]) -> int:
        """Train on these batches without a check of the loss; how many images they have."""
        self._network.train()
        images = 0
        for x, y in self.train.take(order):
            self._step(x, y)
            images += len(x)
        return images

    def _train_step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Take a step on a batch; its loss."""
        self._optimiser.zero_grad(set_to_none=True)
        with self._autocast():
            loss: torch.Tensor = self._criterion(self._network(x), y)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return loss.detach()

    def epoch(
        self, epoch: int, progress: Silent, recorder: Recorder, *, first: bool
    ) -> tuple[float, int, str | None, Cost | None]:
        """Mean loss per image, images trained on, why it stopped early or None, and cost without
        warm-up, or None where it has too few steps or is not the `first`."""
        order = self.train.order(self._spec.batch_size, self._shuffle)
        losses = torch.empty(len(order), device=self._device)
        budget = Budget(self._spec, recorder)
        marked = steady_steps(len(order)) if first else ()
        marks: list[Mark] = []
        stopped = None
        checked = time.perf_counter()
        images = step = 0
        self._network.train()
        for step, (x, y) in enumerate(self.train.take(order), 1):
            self._set_rate((epoch - 1) * len(order) + step - 1)
            losses[step - 1] = self._step(x, y)
            images += len(x)
            stopped = budget.crossed(epoch, step, len(order))
            due = time.perf_counter() - checked >= _CHECK_EVERY_S
            if due or stopped is not None or step == len(order) or step in marked:
                last = _finite(losses[:step], epoch)  # waits for the device
                checked, elapsed_s = time.perf_counter(), recorder.meter.elapsed_s()
                if step in marked:
                    marks.append(Mark(images, elapsed_s, recorder.meter.spent_j()))
                progress.step(step, last, images / elapsed_s)
            if stopped is not None:
                break
        sizes = torch.stack([self.train.known[part].sum() for part in order[:step]])
        mean = (losses[:step].cpu().double() * sizes).sum() / sizes.sum()
        return float(mean), images, stopped, usual_cost(marks, images)

    def _set_rate(self, step: int) -> None:
        """Set the learning rate of a step of the training, from 0."""
        if recipe.scheduled(self._spec):
            share = recipe.rate(self._spec, step, self.steps)
            recipe.set_rate(self._optimiser, self._spec.lr * share)

    def evaluate(self, batches: Batches | head.Features, epoch: int, name: str) -> Evaluation:
        """Loss and scores of a full split."""
        self._network.eval()
        total = torch.zeros((), device=self._device)
        outputs = []
        with torch.inference_mode():
            order = list(torch.arange(len(batches)).split(self._spec.batch_size))
            sizes = [float(batches.known[part].sum()) for part in order]
            for size, (x, y) in zip(sizes, batches.take(order), strict=True):
                output = self._output(x)
                total += self._evaluated(output, y) * size
                outputs.append(output)
            loss = float(total) / sum(sizes)
            logits = torch.cat(outputs)
            probabilities = logits.sigmoid() if self._task == MULTI_LABEL else logits.softmax(dim=1)
        if not np.isfinite(loss):
            raise WorkFailed(
                f"loss: {loss} on the {name} split after epoch {epoch}; lower the learning rate, "
                "or use fp32",
                reason="non_finite_loss",
            )
        labels: Ints = batches.labels.long().cpu().numpy()
        chances = probabilities.cpu().numpy()
        return Evaluation({"loss": loss, **scores(labels, chances, self._task)}, labels, chances)

    def _predict(self, x: torch.Tensor) -> torch.Tensor:
        if self._spec.launch == "graph":  # else a graph would record as input what a model caches
            self._network.train()  # for evaluation, such as LeViT its biases, and later frees
            self._network.eval()
        with self._autocast():
            output: torch.Tensor = self._network(x)
        return output.float()

    def _autocast(self) -> torch.autocast:
        dtype = AUTOCAST.get(self._spec.precision)
        return torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None)


def _finite(losses: torch.Tensor, epoch: int) -> float:
    """The last loss. Raises `WorkFailed` for one that is not finite and names its step."""
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        step = int(bad[0])
        raise WorkFailed(
            f"loss: {float(losses[step])} in epoch {epoch}, step {step + 1}; lower the learning "
            "rate, use fp32, or check the data",
            reason="non_finite_loss",
        )
    return float(losses[-1])


def channel_statistics(
    described: Mapping[str, Any], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pretrained weights' images for each channel.

    Grey images take the mean over the three colours.
    """
    mean, std = (torch.tensor(described[key], dtype=torch.float32) for key in ("mean", "std"))
    return tuple(
        tuple((v if len(v) == channels else v.mean().expand(channels)).tolist())
        for v in (mean, std)
    )  # type: ignore[return-value]


def _normalisation(
    described: Mapping[str, Any], channels: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """`channel_statistics`, for broadcasting."""
    mean, std = (
        torch.tensor(values, device=device).view(1, channels, 1, 1)
        for values in channel_statistics(described, channels)
    )
    return mean, std
