"""The published training-free searches as settings: by name, or read from a TinyNAS configuration file.

    preset_config("zen-cifar-1m", iterations=2000)
    preset("R50_FLOPs.py").fields                     settings of EvolveConfig by name

A budget in milliseconds is of the authors' device: it is given by image, and needs a latency table to count in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError, did_you_mean
from tfnas.core.json_yaml import load_yaml
from tfnas.searching.evolution.evolve_config import EvolveConfig
from tfnas.searching.evolution.tinynas_config import read_tinynas_config


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published search. `fields` are settings by their names."""

    name: str
    source: str
    """The program, and its script or file."""
    fields: Mapping[str, Any]
    ms_per_image: float | None = None
    """Its budget of milliseconds per image, where it has one."""
    device: str | None = None
    """What that was measured on."""

    @property
    def budgets(self) -> dict[str, float]:
        """What limits it, by the names of settings, and `ms_per_image`."""
        limits = {name: value for name, value in self.fields.items() if name.startswith("max_")}
        return limits if self.ms_per_image is None else {**limits, "ms_per_image": self.ms_per_image}

    def settings(self, batch_size: int | None) -> dict[str, Any]:
        """The settings, with the budget of milliseconds for the batch of a latency table, where one is given.

        Raises InputError where there is such a budget and no table.
        """
        if self.ms_per_image is None:
            return dict(self.fields)
        if batch_size is None:
            raise InputError(
                f"preset {self.name} has a budget of {self.ms_per_image:g} ms per image ({self.device}): give "
                f"--lookup_path with a latency table of --space {self.fields['space']}, and --max_ms or --target_lat "
                "where it is of another device"
            )
        return {**self.fields, "max_ms": self.ms_per_image * batch_size}


def preset_config(name_or_path: str, **given: Any) -> EvolveConfig:
    """The settings of a published search, with those given in place of its own.

    Raises InputError as `preset` does, for settings that do not fit, and where a budget of milliseconds has no table.
    """
    found = preset(name_or_path)
    path, batch_size = given.get("lookup_path"), None
    if path is not None and found.ms_per_image is not None:
        from tfnas.latency.structure_table import load_table  # scipy takes half a second to load

        batch_size = load_table(path).batch_size
    own = found.fields if {"target_lat", "max_ms"} & set(given) else found.settings(batch_size)
    return EvolveConfig(**{**own, **given})


def preset_names() -> list[str]:
    """Names of the published searches, in the order of their programs."""
    return list(_presets())


def preset(name_or_path: str) -> Preset:
    """The preset of a name, or of a TinyNAS configuration file, of which nothing is run.

    Raises InputError that lists close names, or names the file and what is wrong in it.
    """
    if name_or_path in _presets():
        return _presets()[name_or_path]
    if Path(name_or_path).suffix == ".py" or Path(name_or_path).is_file():
        fields, ms_per_image, device = read_tinynas_config(Path(name_or_path))
        return Preset(
            name=name_or_path,
            source=f"TinyNAS, {name_or_path}",
            fields=fields,
            ms_per_image=ms_per_image,
            device=device,
        )
    raise InputError(
        f"no preset {name_or_path!r}{did_you_mean(name_or_path, preset_names())}: --list_presets shows all of them, "
        "and a TinyNAS configuration (FILE.py) is taken as well"
    )


@cache
def _presets() -> dict[str, Preset]:
    text = (resources.files("tfnas.searching.evolution") / "presets.yaml").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = {}
    found = {}
    for name, entry in load_yaml(text).items():
        fields = {**entries[entry["extends"]], **entry} if "extends" in entry else entry
        entries[name] = fields
        about: dict[str, Any] = {key: fields.get(key) for key in ("source", "ms_per_image", "device")}
        settings = {key: value for key, value in fields.items() if key not in {*about, "extends"} and value is not None}
        found[name] = Preset(name=name, fields=settings, **about)
    return found
