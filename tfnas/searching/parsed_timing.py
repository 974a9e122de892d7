"""Timing a parsed network on this machine: the processor with one thread, and the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tfnas.bench.timing import Timing, time_network
from tfnas.core.space import IMAGE_CHANNELS
from tfnas.nn.network import Network
from tfnas.searching.parsing import ParsedNetwork
from tfnas.utils.devices import named_device, processor_name
from tfnas.utils.torch_settings import torch_threads

THREADS = 1
_BATCHES = (1, 32)
_SECONDS = 10.0
_RUNS = (5, 30)


@dataclass(frozen=True)
class NetworkTiming:
    """Milliseconds per batch of a whole network with random weights in float32, channels last."""

    device: str
    """The device with what is to be known about its use."""
    device_name: str
    """The name of the processor or GPU alone, as tables have it."""
    batch_size: int
    timing: Timing


def time_here(parsed: ParsedNetwork, device: str, seed: int) -> Iterator[NetworkTiming]:
    """Time batches of 1, 32 and, if the table says it, of the table's size, in turn on each device.

    `device` is `auto` (the processor with one thread, and the GPU if there is one) or one of PyTorch's.
    Raises InputError at once for a device that is not there.
    """
    devices = _devices(device)
    batches = sorted({*_BATCHES, *_table_batch(parsed)})
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Network(parsed.architecture).eval().to(memory_format=torch.channels_last)
    size = parsed.architecture.image_size
    return (
        _time(network, torch.randn(batch, IMAGE_CHANNELS, size, size, generator=generator), place)
        for place in devices
        for batch in batches
    )


def _time(network: Network, images: torch.Tensor, device: torch.device) -> NetworkTiming:
    network.to(device)
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    with torch_threads(THREADS):
        first = time_network(network, images, runs=1, warmup=1)
        runs = round(min(max(_SECONDS * 1000 / first.median_ms, _RUNS[0]), _RUNS[1]))
        timing = time_network(network, images, runs=runs, warmup=2)
    name = processor_name() if device.type == "cpu" else torch.cuda.get_device_name(device)
    words = f"CPU, {THREADS} thread" if device.type == "cpu" else name
    return NetworkTiming(words, name, len(images), timing)


def _table_batch(parsed: ParsedNetwork) -> tuple[int, ...]:
    batch_size = None if parsed.table is None else parsed.table.batch_size
    return () if batch_size is None else (batch_size,)


def _devices(name: str) -> list[torch.device]:
    device = named_device(name)
    return [torch.device("cpu"), device] if name == "auto" and device.type == "cuda" else [device]
