"""Does the loader keep up? Images per second of this project's loader and of the plain one, on real JPEG files.

    python scripts/bench_loader.py [--images 256] [--batch 32] [--image_size 224] [--workers 0 1 2] [--rounds 7]

Writes JPEG files of ImageNet's usual size (parts of two photographs that ship inside scikit-learn) into a temporary
folder. The plain loader is written the usual way: open, convert, RandomResizedCrop, flip, ColorJitter(0.4, 0.4, 0.4,
0.2), ToTensor, Normalize, all in the loader processes. Both see the same files in the same order with the same random
numbers, one after the other in every round; both keep their processes. Nothing but the loader computes: the model is
elsewhere. Each process has one thread. `difference` is the mean over pixels of uint8 levels (of 255).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from tfnas.data.image_batches import EpochBatches, loader, persistent_workers
from tfnas.data.image_files import FileSource
from tfnas.data.image_reading import read_rgb
from tfnas.data.image_sets import AUGMENT_STREAM, Draw, ImageSet, derived_seed
from tfnas.data.preprocessing import NORMALISATIONS, training_transform
from tfnas.utils.devices import load_average, processor_name, runtime_settings, usable_cores

SEED, COMPARED = 0, 96


def main() -> None:
    """Write the files, time both loaders in turn, compare their pixels, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--quality", type=int, default=96, help="of the JPEG files")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="where this project's loader normalises")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, runtime_settings(1, deterministic=False):
        files = write_files(Path(folder), arguments)
        kilobytes = sum((files.root / path).stat().st_size for path in files.paths) / len(files.paths) / 1e3
        print(f"{arguments.images} files of {arguments.width} x {arguments.height}, {kilobytes:.0f} kB on average")
        print(f"{processor_name()}, {usable_cores()} cores, load {load_average()}, torch {torch.__version__}")
        rates = timed(files, arguments)
        found = {
            "kilobytes": kilobytes,
            "load_average": load_average(),
            **summary(rates),
            **differences(files, arguments),
        }
    report(found)
    if arguments.json is not None:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
        told = {"processor": processor_name(), "cores": usable_cores(), "torch": torch.__version__}
        arguments.json.write_text(json.dumps({"settings": settings, **told, **found}, indent=1) + "\n")


def write_files(folder: Path, arguments: argparse.Namespace) -> FileSource:
    """Write random parts of the two photographs."""
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    random, size = np.random.default_rng(SEED), (arguments.width, arguments.height)
    names = [f"{number}.jpg" for number in range(arguments.images)]
    for number, name in enumerate(names):
        photograph = photographs[number % len(photographs)]
        width = int(random.integers(photograph.width * 3 // 4, photograph.width + 1))
        height = min(photograph.height, width * 3 // 4)
        left, upper = random.integers(photograph.width - width + 1), random.integers(photograph.height - height + 1)
        part = photograph.resize(size, Image.Resampling.BICUBIC, (left, upper, left + width, upper + height))
        part.save(folder / name, quality=arguments.quality)
    return FileSource(folder, names, [0] * len(names))


# ---- the plain loader -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain(Dataset[tuple[torch.Tensor, int]]):
    """The usual data set: everything is done to one image after the other."""

    files: FileSource
    image_size: int

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, int]:
        image = Image.open(self.files.root / self.files.paths[draw.index]).convert("RGB")
        seed_generators(draw)
        return self.normalised(self.augmented(image)), self.files.labels[draw.index]

    def augmented(self, image: Image.Image) -> torch.Tensor:
        """The random part, to uint8 3 x S x S."""
        transforms = [
            v2.RandomResizedCrop(self.image_size),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2),
            v2.PILToTensor(),
        ]
        pixels: torch.Tensor = v2.Compose(transforms)(image)
        return pixels

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Float32 3 x S x S."""
        norm = NORMALISATIONS["list"]
        values: torch.Tensor = functional.normalize(
            functional.to_dtype(pixels, torch.float32, scale=True), list(norm.mean), list(norm.std)
        )
        return values


@dataclass
class Turn(Sampler[list[Draw]]):
    """Batches of an epoch that is set from outside, so that the loader's processes can stay."""

    images: int
    batch_size: int
    epoch: int = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(EpochBatches(self.images, batch_size=self.batch_size, epoch=self.epoch, seed=SEED))


def seed_generators(draw: Draw) -> None:
    """Seed PyTorch's generator as the project does for this draw."""
    torch.default_generator.manual_seed(derived_seed(SEED, AUGMENT_STREAM, draw.epoch) + draw.index)


# ---- timing ---------------------------------------------------------------------------------------------------------

Epoch = Callable[[int], Iterable[Any]]


def timed(
    files: FileSource, arguments: argparse.Namespace, which: Sequence[str] = ("plain", "tfnas")
) -> dict[str, dict[int, list[float]]]:
    """Images per second by loader and number of workers, one value per round; a first round warms up."""
    makers = {"plain": plain_epochs, "tfnas": own_epochs}
    device = torch.device(arguments.device)
    with persistent_workers():
        loaders = {
            (name, workers): makers[name](files, workers, arguments, device)
            for workers in arguments.workers
            for name in which
        }
        rates: dict[str, dict[int, list[float]]] = {
            name: {workers: [] for workers in arguments.workers} for name in which
        }
        for number in range(arguments.rounds + 1):
            order = list(loaders) if number % 2 else list(reversed(loaders))
            for name, workers in order:
                start = time.perf_counter()
                for images, _ in loaders[name, workers](number):
                    last = images
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                assert last.dtype == torch.float32
                if number:
                    rates[name][workers].append(arguments.images / (time.perf_counter() - start))
    return rates


def plain_epochs(files: FileSource, workers: int, arguments: argparse.Namespace, _device: torch.device) -> Epoch:
    """The plain loader, as a function from the number of an epoch to its batches."""
    turn = Turn(arguments.images, arguments.batch)
    batches: DataLoader[Any] = DataLoader(
        Plain(files, arguments.image_size), batch_sampler=turn, num_workers=workers, persistent_workers=workers > 0
    )

    def epoch(number: int) -> Iterable[Any]:
        turn.epoch = number
        return batches

    return epoch


def own_epochs(files: FileSource, workers: int, arguments: argparse.Namespace, device: torch.device) -> Epoch:
    """This project's loader, likewise."""
    images = ImageSet((files,), training_transform("list", arguments.image_size), SEED)

    def epoch(number: int) -> Iterable[Any]:
        batches = EpochBatches(len(images), batch_size=arguments.batch, epoch=number, seed=SEED)
        return loader(images, batches, workers=workers, device=device)

    return epoch


def summary(rates: dict[str, dict[int, list[float]]]) -> dict[str, Any]:
    """Rates with the ratio of every round, its median and its range."""
    ratios = {
        workers: [own / plain for own, plain in zip(rates["tfnas"][workers], plains, strict=True)]
        for workers, plains in rates["plain"].items()
    }
    return {"images_per_second": rates, "ratios": ratios}


# ---- pixels ---------------------------------------------------------------------------------------------------------


def differences(files: FileSource, arguments: argparse.Namespace) -> dict[str, float]:
    """Mean differences in levels, for the same draws: of the whole, of the view alone, and what the jitter changes."""
    ours = ImageSet((files,), training_transform("list", arguments.image_size), SEED)
    plain, crop = Plain(files, arguments.image_size), v2.RandomResizedCrop(arguments.image_size)
    view = ours.transform.view
    assert view is not None
    whole, part, jitter = [], [], []
    for index in range(min(arguments.images, COMPARED)):
        draw, path = Draw(1, index), files.root / files.paths[index]
        picture = read_rgb(path, "")
        seed_generators(draw)
        usual = plain.augmented(picture)
        own, _ = ours.pixels([draw])
        seed_generators(draw)
        cut = functional.pil_to_tensor(crop(picture))
        seed_generators(draw)
        own_cut = files.read(index, view)
        assert isinstance(own_cut, torch.Tensor)
        uncoloured = cut.flip(2) if torch.rand(1) < 0.5 else cut
        whole.append(mean_difference(own[0], usual))
        part.append(mean_difference(own_cut, cut))
        jitter.append(mean_difference(usual, uncoloured))
    return {
        "difference": statistics.mean(whole),
        "difference_of_the_view": statistics.mean(part),
        "what_the_jitter_changes": statistics.mean(jitter),
    }


def mean_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """Mean absolute difference of uint8 tensors."""
    return float((left.int() - right.int()).abs().float().mean())


def report(found: dict[str, Any]) -> None:
    """Print a table: medians, and the ratio with its range."""
    print("\n| workers | plain, images/s | tfnas, images/s | ratio | range |\n|---|---|---|---|---|")
    for workers, ratios in found["ratios"].items():
        plain, own = (statistics.median(found["images_per_second"][name][workers]) for name in ("plain", "tfnas"))
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"| {workers} | {plain:.0f} | {own:.0f} | {statistics.median(ratios):.2f} | {spread} |")
    print(
        f"\nmean difference of pixels to the plain loader {found['difference']:.2f} of 255 (of the view alone "
        f"{found['difference_of_the_view']:.2f}); the jitter changes them by {found['what_the_jitter_changes']:.2f}"
    )


if __name__ == "__main__":
    main()
