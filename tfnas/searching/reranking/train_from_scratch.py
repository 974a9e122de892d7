"""Short training of a candidate from scratch on part of the images: the accuracy that scores are calibrated with.

The test part is not used. The training images are part of the weights part, stratified by class; the evaluation images
are the architecture part and the rest of the weights part.
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
from tfnas.data.data_config import DataConfig
from tfnas.data.image_batches import EpochBatches, loader, loader_processes
from tfnas.data.image_sets import ChooseView, ImageSet, ImageSource, Raw, derived_seed, stratified_split
from tfnas.data.opened_data import open_parts
from tfnas.data.preprocessing import Preprocessing, training_transform
from tfnas.nn.classification_metrics import evaluate_batches, evaluating
from tfnas.nn.network import Network
from tfnas.runs.distributed import DistributedContext
from tfnas.searching.reranking.rerank_tasks import environment, plain_settings
from tfnas.supernet.extract import estimate_batch_norm
from tfnas.training.train_config import Recipe, TrainConfig, learning_rate, recipe_for
from tfnas.training.train_steps import STEP_STREAM, NetworkLearner, make_learner, train_step

TRAINED = "trained"


def short_recipe(data: DataConfig, epochs: int, images: int) -> Recipe:
    """The recipe of the data set for so few epochs, without dropout and drop-connect, on one thread.

    With fewer images than the batch size, the batch size is their number and the learning rate is scaled accordingly.
    """
    overrides = {"epochs": epochs, "dropout_rate": 0.0, "drop_connect_rate": 0.0, "threads": 1, "warmup_epochs": 0}
    recipe = recipe_for(data.data_kind, overrides)
    batch_size = min(recipe.batch_size, images)
    return dataclasses.replace(recipe, batch_size=batch_size, lr=recipe.lr * batch_size / recipe.batch_size)


@dataclass(frozen=True)
class TrainedTask:
    """Top-1 in percent of a candidate trained from scratch, on images that it was not trained on."""

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
        """Recipe, images and seed, device and versions."""
        recipe = dataclasses.asdict(self.recipe)
        data = plain_settings(self.data)
        return {"recipe": recipe, "data": data, "images": self.images, "seed": self.seed, **environment(self.device)}

    def compute(self) -> float:
        """Train and evaluate. Raises RunFailed when the loss is not finite."""
        device = torch.device(self.device)
        architecture = Architecture.parse(self.architecture)
        images = calibration_images(self.data, self.images, architecture.image_size)
        workers = loader_processes(self.workers, self.data.data_kind)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            learner = self._trained(architecture, images, device, workers)
            plain = EpochBatches(len(images.to_evaluate), batch_size=_EVALUATION_BATCH, epoch=0, seed=None)
            batches = ((pictures, labels) for pictures, labels in loader(images.to_evaluate, plain, workers=workers))
            with evaluating(learner.network):
                return evaluate_batches(learner.network, batches, device, num_classes=architecture.num_classes).top1

    def _trained(
        self, architecture: Architecture, images: CalibrationImages, device: torch.device, workers: int
    ) -> NetworkLearner:
        torch.manual_seed(self.seed)
        train = dataclasses.replace(images.to_train, seed=self.seed)
        # of the configuration of a training run, only what decides how a step computes matters here
        config = TrainConfig(config_path=self.architecture, seed=self.seed, device=self.device)
        learner = make_learner(Network(architecture), None, self.recipe, config, DistributedContext(0, 1, device))
        for epoch in range(self.recipe.epochs):
            for group in learner.optimizer.param_groups:
                group["lr"] = learning_rate(self.recipe, epoch)
            order = EpochBatches(len(train), batch_size=self.recipe.batch_size, epoch=epoch, seed=self.seed, whole=True)
            for step, (pictures, labels) in enumerate(loader(train, order, workers=workers)):
                torch.manual_seed(derived_seed(self.seed, STEP_STREAM, epoch, step, 0))
                try:
                    train_step(learner, learner.place(pictures), labels.to(device))
                except RunFailed as error:
                    raise RunFailed(
                        f"its short training failed in epoch {epoch + 1}: the loss is not finite"
                    ) from error
        plain = dataclasses.replace(images.to_train, transform=images.to_evaluate.transform)
        batches = EpochBatches(len(plain), batch_size=self.recipe.batch_size, epoch=0, seed=self.seed, whole=True)
        estimate_batch_norm(
            learner.network, (learner.place(pictures) for pictures, _ in loader(plain, batches, workers=workers))
        )
        return learner


_EVALUATION_BATCH = 128


@dataclass(frozen=True)
class CalibrationImages:
    """Training images with augmentation, evaluation images without."""

    to_train: ImageSet
    to_evaluate: ImageSet


@lru_cache(maxsize=1)
def calibration_images(data: DataConfig, images: int | None, image_size: int) -> CalibrationImages:
    """Open the images. Raises InputError for more than there are, or fewer than one per class."""
    name, parts = data.data_kind, open_parts(data, image_size)
    labels, classes = parts.weights.labels, parts.class_names
    to_train: tuple[ImageSource, ...] = (parts.weights,)
    to_evaluate: tuple[ImageSource, ...] = (parts.architecture,)
    if images is not None and images != len(labels):
        if not len(classes) <= images < len(labels):
            raise InputError(
                f"--calibrate_images must be {len(classes)} (one per class) to {len(labels)} (the whole weights "
                f"part), got {images}"
            )
        left, taken = stratified_split(labels, images / len(labels), classes, "the weights part")
        to_train, to_evaluate = (_Subset(parts.weights, taken),), (parts.architecture, _Subset(parts.weights, left))
    return CalibrationImages(
        ImageSet(to_train, training_transform(name, image_size), seed=0),
        ImageSet(to_evaluate, Preprocessing.of(name, image_size).transform(), seed=0),
    )


@dataclass(frozen=True, eq=False)
class _Subset:
    """Images of a source at some indices."""

    whole: ImageSource
    indices: Sequence[int]

    @property
    def labels(self) -> Sequence[int]:
        return [self.whole.labels[index] for index in self.indices]

    def read(self, index: int, view: ChooseView | None = None) -> Raw:
        return self.whole.read(self.indices[index], view)

    def identity(self) -> bytes:
        return self.whole.identity() + b":" + ",".join(map(str, self.indices)).encode()
