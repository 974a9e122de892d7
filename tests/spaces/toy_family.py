"""A family of networks in one file outside the package: plain chains of convolutions, written `toy:16x10:8,12`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tfnas.core.errors import InputError
from tfnas.core.units import CostPart, Counts


@dataclass(frozen=True)
class ToyArchitecture:
    family: ClassVar[str] = "toy"
    in_channels: ClassVar[int] = 3
    image_size: int
    num_classes: int
    widths: tuple[int, ...]

    def adapted(self, *, image_size, num_classes):
        return dataclasses.replace(self, image_size=image_size, num_classes=num_classes)

    def to_text(self):
        return f"toy:{self.image_size}x{self.num_classes}:{','.join(map(str, self.widths))}"


class ToyFamily:
    name = "toy"

    def sample(self, generator):
        return ToyArchitecture(16, 10, tuple(int(width) for width in generator.integers(4, 20, size=3)))

    def mutate(self, architecture, generator):
        widths = list(architecture.widths)
        widths[int(generator.integers(len(widths)))] += 1
        return dataclasses.replace(architecture, widths=tuple(widths))

    def cost_parts(self, architecture):
        parts, channels, size = [], 3, architecture.image_size
        for number, width in enumerate(architecture.widths):
            weights = 9 * channels * width
            counts = Counts(weights + 2 * width, weights * size**2)
            parts.append(CostPart(str(number), f"toy_{size}_{channels}", width, counts, channels, width, size))
            channels = width
        classes = architecture.num_classes
        weights = (channels + 1) * classes
        counts = Counts(weights, weights + channels * size**2)
        return (
            *parts,
            CostPart(f"{len(parts)}.2", f"head_{size}_{channels}", classes, counts, channels, classes, size),
        )

    def build(self, architecture, num_classes=None, *, dropout_rate=0.0, drop_connect_rate=0.0, residuals=True):
        layers, channels = [], 3
        for width in architecture.widths:
            conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU()))
            channels = width
        classes = architecture.num_classes if num_classes is None else num_classes
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
        return nn.Sequential(*layers, nn.Sequential(*head))

    def recognizes(self, text):
        return text.strip().startswith("toy:")

    def parse(self, text):
        try:
            _, images, widths = text.strip().split(":")
            size, classes = images.split("x")
            return ToyArchitecture(int(size), int(classes), tuple(int(width) for width in widths.split(",")))
        except ValueError as error:
            raise InputError(f"not a toy: {text!r}") from error

    def format(self, architecture):
        return architecture.to_text()

    def says_images(self, text):
        return True

    def original_form(self, architecture):
        return None


FAMILY = ToyFamily()
