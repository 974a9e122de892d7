"""Building networks of the zoo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.zoo.catalogue import facts

if TYPE_CHECKING:
    from tfnas.structures.network import StructureNetwork

_CLASSES = {"zennet_cifar10_": 10, "zennet_cifar100_": 100, "zennet_imagenet1k_": 1000}


def build(name: str, *, num_classes: int | None = None, use_se: bool | None = None) -> StructureNetwork:
    """A network of the zoo with PyTorch's initial weights; `load_published` gives it those of its program.

    What is not given is as the name says: `zennet_cifar10_...` has 10 classes, `zennet_cifar100_...` 100 and
    `zennet_imagenet1k_...` 1000, and other names none, which makes the last feature map the output; `..._SE_res224` has
    squeeze-and-excite, and other names have not.

    Raises InputError for an unknown name, and for `use_se` where the structure's notation has no such choice.
    """
    from tfnas.structures.network import StructureNetwork

    structure = facts(name).structure
    if num_classes is None:
        num_classes = next((classes for start, classes in _CLASSES.items() if name.startswith(start)), None)
    return StructureNetwork(structure, num_classes=num_classes, use_se="_SE_" in name if use_se is None else use_se)
