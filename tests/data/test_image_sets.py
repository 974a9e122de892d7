"""What a draw looks like depends on (seed, epoch, index) only; a resumed epoch goes on where it stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tfnas.core.errors import InputError
from tfnas.data import image_batches
from tfnas.data.data_config import DataConfig
from tfnas.data.image_batches import EpochBatches, loader, persistent_workers
from tfnas.data.image_files import FileSource
from tfnas.data.image_sets import ArraySource, ChooseView, Draw, ImageSet, Raw, Transform
from tfnas.data.opened_data import open_data
from tfnas.data.preprocessing import Preprocessing, training_transform

# A machine with one core suggests fewer workers; Python 3.12 and later warn of forking beside torch's threads.
forks = pytest.mark.filterwarnings("ignore:.*(worker processes|multi-threaded)")


def coloured(count: int = 10, side: int = 8) -> ArraySource:
    images = torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(1))
    return ArraySource(images.to(torch.uint8), list(range(count)))


def shifted_set(seed: int = 0, count: int = 10) -> ImageSet:
    return ImageSet((coloured(count),), training_transform("digits", 8), seed)


@pytest.fixture
def photos(tmp_path: Path) -> ImageSet:
    """Five photographs of uneven sizes under the full augmentation of image lists."""
    noise = np.random.default_rng(0)
    names = [f"{index}.png" for index in range(5)]
    for index, name in enumerate(names):
        pixels = noise.integers(0, 256, (40 + 7 * index, 60 - 5 * index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    source = FileSource(tmp_path, names, [0, 1, 2, 3, 4], Path("train.txt"))
    return ImageSet((source,), training_transform("list", 32), seed=3)


def epoch_of(images: ImageSet, workers: int = 0, epoch: int = 0, first: int = 0, shuffle: bool = True) -> list[list]:
    order = EpochBatches(len(images), batch_size=3, epoch=epoch, seed=5 if shuffle else None, first_batch=first)
    batches = loader(images, order, workers=workers)
    listed = [list(batch) for batch in batches]
    assert len(batches) == len(listed)
    return listed


def assert_same(left: list[list], right: list[list]) -> None:
    assert len(left) == len(right)
    for (images, labels), (other_images, other_labels) in zip(left, right, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


@forks
def test_the_number_of_workers_changes_nothing(photos: ImageSet) -> None:
    assert_same(epoch_of(photos, workers=0), epoch_of(photos, workers=2))


def test_the_number_of_threads_changes_nothing(photos: ImageSet) -> None:
    """At a size that PyTorch shares out among threads."""
    large, before = ImageSet(photos.sources, training_transform("list", 224), seed=3), torch.get_num_threads()
    seen = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            seen.append(large.pixels([Draw(1, index) for index in range(5)])[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*seen)


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_the_callers_random_numbers_are_left_alone(workers: int) -> None:
    before = torch.get_rng_state()
    epoch_of(shifted_set(), workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_draw_depends_on_seed_epoch_and_index_alone(photos: ImageSet) -> None:
    first, label = photos[Draw(2, 1)]
    torch.rand(7)
    photos[Draw(0, 0)]
    again, _ = photos[Draw(2, 1)]
    assert label == 1
    assert torch.equal(first, again)
    assert not torch.equal(first, photos[Draw(3, 1)][0])
    assert not torch.equal(first, ImageSet(photos.sources, photos.transform, seed=4)[Draw(2, 1)][0])


def test_a_batch_equals_its_draws_one_by_one(photos: ImageSet) -> None:
    draws = [Draw(1, index) for index in (4, 0, 2)]
    for draw, (image, label) in zip(draws, photos.__getitems__(draws), strict=True):
        assert torch.equal(image, photos[draw][0])
        assert label == draw.index


def test_items_are_normalised_float32(photos: ImageSet) -> None:
    image, label = ImageSet(photos.sources, Preprocessing.of("list", 32).transform(), 0)[Draw(0, 3)]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 3)
    white = ArraySource(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8), [0])
    value, _ = ImageSet((white,), Preprocessing.of("cifar10", 32).transform(), 0)[Draw(0, 0)]
    expected = torch.tensor([(1 - 0.4914) / 0.2470, (1 - 0.4822) / 0.2435, (1 - 0.4465) / 0.2616])
    torch.testing.assert_close(value[:, 0, 0], expected)


def test_the_first_draw_of_neighbouring_indices_is_uniform() -> None:
    """Seeds of neighbouring images differ by one; their shifts must still cover all nine places evenly."""
    mark = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    mark[..., 4, 4] = 1
    places = ImageSet((ArraySource(mark.expand(3600, -1, -1, -1), [0] * 3600),), training_transform("digits", 8), 0)
    raw = Transform(places.transform.shape, torch.nn.Identity())
    items = ImageSet(places.sources, raw, 0).__getitems__([Draw(0, index) for index in range(3600)])
    counts = torch.stack([image for image, _ in items])[:, 0, 3:6, 3:6].long().sum(0)
    chi_square = ((counts - 400) ** 2 / 400).sum().item()
    assert counts.sum() == 3600
    assert chi_square < 26.1  # 99.9 % quantile at 8 degrees of freedom


def test_two_sources_stand_in_one_row() -> None:
    whole = coloured(10)
    both = ImageSet((whole.subset([0, 1, 2]), whole.subset(range(3, 10))), Preprocessing.of("digits", 8).transform(), 0)
    one = ImageSet((whole,), Preprocessing.of("digits", 8).transform(), 0)
    assert len(both) == 10
    assert both.labels == list(range(10))
    for index in range(10):
        assert torch.equal(both[Draw(0, index)][0], one[Draw(0, index)][0])
    with pytest.raises(IndexError, match="image 10 of 10"):
        both[Draw(0, 10)]


def test_an_epoch_is_a_permutation_with_its_last_partial_batch() -> None:
    batches = epoch_of(shifted_set())
    labels = torch.cat([labels for _, labels in batches])
    assert [len(labels) for _, labels in batches] == [3, 3, 3, 1]
    assert sorted(labels.tolist()) == list(range(10))
    assert labels.tolist() != list(range(10))
    other = torch.cat([labels for _, labels in epoch_of(shifted_set(), epoch=1)])
    assert labels.tolist() != other.tolist()
    plain = torch.cat([labels for _, labels in epoch_of(shifted_set(), shuffle=False)])
    assert plain.tolist() == list(range(10))


@forks
@pytest.mark.parametrize("first", range(5))
def test_a_resumed_epoch_is_the_tail_of_the_whole(first: int) -> None:
    whole = epoch_of(shifted_set(), epoch=4)
    assert_same(epoch_of(shifted_set(), epoch=4, first=first, workers=first % 2), whole[first:])


def test_a_batch_beyond_the_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="first_batch is 5, but 10 images make 4 batches"):
        epoch_of(shifted_set(), first=5)
    with pytest.raises(InputError, match="batch size is 0"):
        EpochBatches(10, batch_size=0, epoch=0, seed=0)


@forks
@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_names_its_line_with_any_number_of_workers(photos: ImageSet, workers: int) -> None:
    (photos.sources[0].root / "3.png").write_bytes(b"not an image")
    with pytest.raises(InputError) as caught:
        epoch_of(photos, workers=workers)
    assert str(caught.value).startswith("train.txt:4: cannot read the image")
    assert "3.png" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@forks
def test_a_worker_that_is_terminated_ends_quietly_after_its_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch reports a worker that ends with another status than 0, be it at the end of the program."""
    monkeypatch.setattr(image_batches, "_GRACE_SECONDS", 0.2)
    forking = multiprocessing.get_context("fork")
    ready = forking.Event()

    def work() -> None:
        image_batches._leave_signals_to_the_parent(0)
        ready.set()
        time.sleep(60)

    worker = forking.Process(target=work, daemon=True)
    worker.start()
    assert ready.wait(30)
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0


SLOW_WORKER = """
import sys, time, torch
from tfnas.data import image_batches
from tfnas.data.image_batches import EpochBatches, loader
from tfnas.data.image_sets import ImageSet
from tfnas.data.image_sets import Transform
from tfnas.core.errors import InputError

class Images:
    labels = [0, 1]
    def read(self, index, view=None):
        if index == 0:
            raise InputError("train.txt:1: cannot read the image")
        time.sleep(100)

image_batches._GRACE_SECONDS = 1
images = ImageSet((Images(),), Transform(torch.nn.Identity(), torch.nn.Identity()), 0)
try:
    list(loader(images, EpochBatches(2, batch_size=1, epoch=0, seed=None), workers=2))
except InputError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_a_worker_slow_to_end_says_nothing_after_the_message() -> None:
    command = [sys.executable, "-W", "ignore", "-c", SLOW_WORKER]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "train.txt:1: cannot read the image\n")


@dataclass(frozen=True)
class InterruptProbe:
    """A source that reads 1 where Ctrl-C is ignored."""

    labels: Sequence[int] = field(default_factory=lambda: [0])

    def read(self, index: int, view: ChooseView | None = None) -> Raw:
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return torch.full((3, 1, 1), int(ignored), dtype=torch.uint8)


@forks
def test_workers_leave_ctrl_c_to_the_parent() -> None:
    probe = ImageSet((InterruptProbe(),), Transform(torch.nn.Identity(), torch.nn.Identity()), 0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    try:
        assert epoch_of(probe, workers=0)[0][0].max() == 0
        assert epoch_of(probe, workers=1)[0][0].min() == 1
    finally:
        signal.signal(signal.SIGINT, before)


# --- where batches are finished, and by whom ------------------------------------------------------------------------


def test_a_batch_is_its_items_normalised_once(photos: ImageSet) -> None:
    """Bit for bit what torchvision makes of the pixels, in one piece or one by one."""
    draws = [Draw(0, index) for index in (1, 3)]
    pixels, labels = photos.pixels(draws)
    assert (pixels.dtype, labels.tolist()) == (torch.uint8, [1, 3])
    usual = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )
    expected = usual(pixels)
    assert torch.equal(torch.stack([photos[draw][0] for draw in draws]), expected)
    assert torch.equal(photos.transform.normalise(pixels), expected)
    assert pixels.dtype == torch.uint8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_normalises_to_the_same_values(photos: ImageSet) -> None:
    order = EpochBatches(len(photos), batch_size=3, epoch=0, seed=5)
    batches = [list(batch) for batch in loader(photos, order, workers=0, device=torch.device("cuda"))]
    assert all(images.device.type == "cuda" for images, _ in batches)
    assert_same([[images.cpu(), labels] for images, labels in batches], epoch_of(photos))


@dataclass(frozen=True, eq=False)
class ProcessProbe:
    """A source whose pixels tell the process that reads them, and the index."""

    count: int

    @property
    def labels(self) -> Sequence[int]:
        return range(self.count)

    def read(self, index: int, view: ChooseView | None = None) -> Raw:
        number = os.getpid()
        return torch.tensor([[[number % 256]], [[number // 256 % 256]], [[number // 65536]]], dtype=torch.uint8)


def readers(images: ImageSet, workers: int = 2) -> set[tuple[int, ...]]:
    """The processes that read an epoch."""
    return {tuple(pixel.flatten().tolist()) for batch, _ in epoch_of(images, workers=workers) for pixel in batch}


@pytest.fixture
def probe() -> ImageSet:
    return ImageSet((ProcessProbe(12),), Transform(torch.nn.Identity(), torch.nn.Identity()), 0)


@forks
def test_kept_workers_read_the_next_epochs_too(probe: ImageSet) -> None:
    first = readers(probe)
    assert len(first) == 2
    assert readers(probe).isdisjoint(first)
    children = set(multiprocessing.active_children())
    with persistent_workers():
        first = readers(probe)
        assert readers(probe) == first
        assert readers(probe, workers=1).isdisjoint(first)
        assert set(multiprocessing.active_children()) > children
    assert set(multiprocessing.active_children()) == children


@forks
def test_what_kept_workers_read_is_the_same(photos: ImageSet) -> None:
    """Also after an epoch that was left, beside one under way, and after an error."""
    expected = [epoch_of(photos, epoch=epoch) for epoch in range(3)]
    with persistent_workers():
        assert_same(epoch_of(photos, workers=2), expected[0])
        order = EpochBatches(len(photos), batch_size=3, epoch=1, seed=5)
        for images, labels in loader(photos, order, workers=2):
            assert_same([[images, labels]], expected[1][:1])
            break
        assert_same(epoch_of(photos, workers=2, epoch=2), expected[2])
        under_way = iter(loader(photos, order, workers=2))
        begun = list(next(under_way))
        assert_same(epoch_of(photos, workers=2, epoch=2), expected[2])
        assert_same([begun, *map(list, under_way)], expected[1])
        picture = photos.sources[0].root / "3.png"
        content = picture.read_bytes()
        picture.write_bytes(b"not an image")
        with pytest.raises(InputError, match=r"^train\.txt:4"):
            epoch_of(photos, workers=2)
        picture.write_bytes(content)
        assert_same(epoch_of(photos, workers=2, epoch=2), expected[2])


def test_digits_are_the_same_for_every_seed_but_for_their_augmentation() -> None:
    data, other = (open_data(DataConfig(), image_size=16, seed=seed) for seed in (0, 1))
    assert torch.equal(data.architecture[Draw(0, 5)][0], other.architecture[Draw(9, 5)][0])
    pairs = [(data.weights[Draw(0, i)][0], other.weights[Draw(0, i)][0]) for i in range(20)]
    assert not all(torch.equal(left, right) for left, right in pairs)
