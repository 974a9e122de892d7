"""How a command is told which network: --model_path, --config_path or --arch. No torch is needed."""

from __future__ import annotations

from typing import Protocol

from tfnas.core.errors import InputError


class NamesNetwork(Protocol):
    """What a configuration says about the network."""

    @property
    def model_path(self) -> str | None:
        """A run directory or a file in one."""

    @property
    def config_path(self) -> str | None:
        """A file with the architecture alone."""

    @property
    def arch(self) -> str | None:
        """A name of the zoo, or the text of an architecture."""


def named_flags(named: NamesNetwork) -> dict[str, str]:
    """The flags that name a network, with what they were given."""
    values = {name: getattr(named, name) for name in ("model_path", "config_path", "arch")}
    return {name: value for name, value in values.items() if value is not None}


def check_named_once(named: NamesNetwork, run: str, or_else: str = "", weights: str | None = None) -> None:
    """Raise InputError unless one flag alone says which network.

    `run` is what messages call what --model_path takes; `or_else` is a further way to name a network, if there is one,
    and `weights` what --weights was given.
    """
    given = [f"--{name}" for name in named_flags(named)]
    if len(given) > 1:
        raise InputError(
            f"give {' or '.join(given)}, not {'all' if len(given) > 2 else 'both'}: each says which network"
        )
    if not given:
        lone = "" if weights is None else f"--weights {weights} says no network; "
        raise InputError(
            f"{lone}which network? Give --model_path {run}, --config_path FILE (model.config, architecture.json or a "
            f"structure's text), or --arch NAME (of the zoo, or an architecture's text){or_else}"
        )


def check_weights_named(named: NamesNetwork, weights: str | None) -> None:
    """Raise InputError where an architecture is named alone, without its weights."""
    for name, value in named_flags(named).items():
        if name != "model_path" and weights is None:
            raise InputError(f"--{name} {value} says the network alone: give its weights too, with --weights FILE")
