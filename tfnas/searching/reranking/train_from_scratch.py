"""Training a candidate from scratch, briefly, on part of the images: what scores are held against.

The test part is not touched. What trains is a part of the weight part, the same number of every class as far as that
goes; what judges is the architecture part and the images of the weight part that do not train.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError, RunFailed
from tfnas.data.data_config import DataConfig, data_name
from tfnas.data.image_reading import ChooseView
from tfnas.data.images import ImageSet, Raw, Source, derived_seed
from tfnas.data.loading import EpochBatches, loader
from tfnas.data.opening import loader_processes, open_parts
from tfnas.data.parts import stratified_split
from tfnas.data.transforms import plain_transform, training_transform
from tfnas.nn.classification_metrics import evaluate_batches, evaluating
from tfnas.nn.network import Network
from tfnas.runs.distributed import DistributedContext
from tfnas.searching.reranking.rerank_tasks import computed_by
from tfnas.supernet.extract import estimate_batch_norm
from tfnas.training.train_config import Recipe, TrainConfig, learning_rate, recipe_for
from tfnas.training.train_session import STEP_STREAM
from tfnas.training.train_steps import Learner, make_learner, train_step

TRAINED = "trained"


def short_recipe(data: DataConfig, epochs: int, images: int) -> Recipe:
    """The recipe for the kind of data, so short, without dropout and drop-connect, on one thread.

    Where there are fewer images than a batch holds, the batch is those, and the learning rate in proportion.
    """
    said = {"epochs": epochs, "dropout_rate": 0.0, "drop_connect_rate": 0.0, "threads": 1, "warmup_epochs": 0}
    recipe = recipe_for(data_name(data), said)
    batch_size = min(recipe.batch_size, images)
    return dataclasses.replace(recipe, batch_size=batch_size, lr=recipe.lr * batch_size / recipe.batch_size)


@dataclass(frozen=True)
class TrainedTask:
    """Top-1 in percent, on images that did not train, of a candidate trained from scratch."""

    architecture: str
    data: DataConfig
    images: int | None
    recipe: Recipe
    seed: int
    device: str
    workers: int | None

    @property
    def measure(self) -> str:
        """`trained`."""
        return TRAINED

    def settings(self) -> dict[str, Any]:
        """The recipe, the images and the seed, and who computes."""
        recipe = dataclasses.asdict(self.recipe)
        data = {name: value for name, value in dataclasses.asdict(self.data).items() if name != "workers"}
        return {"recipe": recipe, "data": data, "images": self.images, "seed": self.seed, **computed_by(self.device)}

    def compute(self) -> float:
        """Train and judge. Raises RunFailed when the loss is not finite."""
        device = torch.device(self.device)
        architecture = Architecture.parse(self.architecture)
        images = calibration_images(self.data, self.images, architecture.image_size)
        workers = loader_processes(self.workers, data_name(self.data))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            learner = self._trained(architecture, images, device, workers)
            plain = EpochBatches(len(images.to_judge), batch_size=_JUDGED_AT_ONCE, epoch=0, seed=None)
            batches = ((pictures, labels) for pictures, labels in loader(images.to_judge, plain, workers=workers))
            with evaluating(learner.network):
                return evaluate_batches(learner.network, batches, device, num_classes=architecture.num_classes).top1

    def _trained(
        self, architecture: Architecture, images: CalibrationImages, device: torch.device, workers: int
    ) -> Learner:
        torch.manual_seed(self.seed)
        train = dataclasses.replace(images.to_train, seed=self.seed)
        # the configuration of a training run, of which only how a step computes matters here
        config = TrainConfig(config_path=self.architecture, seed=self.seed, device=self.device)
        learner = make_learner(Network(architecture), None, self.recipe, config, DistributedContext(0, 1, device))
        for epoch in range(self.recipe.epochs):
            for group in learner.optimizer.param_groups:
                group["lr"] = learning_rate(self.recipe, epoch)
            order = EpochBatches(len(train), batch_size=self.recipe.batch_size, epoch=epoch, seed=self.seed, whole=True)
            for step, (pictures, labels) in enumerate(loader(train, order, workers=workers)):
                torch.manual_seed(derived_seed(self.seed, STEP_STREAM, epoch, step, 0))
                try:
                    train_step(learner, learner.place(pictures), labels.to(device), False)
                except RunFailed as error:
                    raise RunFailed(
                        f"its short training failed in epoch {epoch + 1}: the loss is not finite"
                    ) from error
        plain = dataclasses.replace(images.to_train, transform=images.to_judge.transform)
        batches = EpochBatches(len(plain), batch_size=self.recipe.batch_size, epoch=0, seed=self.seed, whole=True)
        estimate_batch_norm(
            learner.network, (learner.place(pictures) for pictures, _ in loader(plain, batches, workers=workers))
        )
        return learner


_JUDGED_AT_ONCE = 128


@dataclass(frozen=True)
class CalibrationImages:
    """What trains, augmented, and what judges, plain."""

    to_train: ImageSet
    to_judge: ImageSet


@lru_cache(maxsize=1)
def calibration_images(data: DataConfig, images: int | None, image_size: int) -> CalibrationImages:
    """Open them. Raises InputError where more are asked for than there are, or fewer than one of every class."""
    name, parts = data_name(data), open_parts(data, image_size)
    labels, classes = parts.weights.labels, parts.class_names
    to_train: tuple[Source, ...] = (parts.weights,)
    to_judge: tuple[Source, ...] = (parts.architecture,)
    if images is not None and images != len(labels):
        if not len(classes) <= images < len(labels):
            raise InputError(
                f"--calibrate_images must be {len(classes)} (one of every class) to {len(labels)} (all that the weight "
                f"part has), got {images}"
            )
        left, taken = stratified_split(labels, images / len(labels), classes, "the weight part")
        to_train, to_judge = (_Some(parts.weights, taken),), (parts.architecture, _Some(parts.weights, left))
    return CalibrationImages(
        ImageSet(to_train, training_transform(name, image_size), seed=0),
        ImageSet(to_judge, plain_transform(name, image_size), seed=0),
    )


@dataclass(frozen=True, eq=False)
class _Some:
    """The images of a source at some places."""

    whole: Source
    places: Sequence[int]

    @property
    def labels(self) -> Sequence[int]:
        return [self.whole.labels[place] for place in self.places]

    def read(self, index: int, view: ChooseView | None = None) -> Raw:
        return self.whole.read(self.places[index], view)

    def identity(self) -> bytes:
        return self.whole.identity() + b":" + ",".join(map(str, self.places)).encode()
