"""Names that are imported when they are first used, and names that the documentation once gave under other modules.

Importing the package costs little that way. Old names still work, with a DeprecationWarning.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A module's `__getattr__`: `homes` says in which module each name is defined, or that it is a module itself."""

    def look_up(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = import_module(homes[name])
        return home if homes[name] == f"{package}.{name}" else getattr(home, name)

    return look_up


_FACE = "tfnas"
_ZEN = "tfnas.spaces.zen"
# Old module -> name -> where it is now, then `:` and its name there if that is new. Modules without names are only ways
# to others.
MOVED = MappingProxyType(
    {
        "tfnas.bench.onnx_graph": {"onnx_bytes_of": "tfnas.bench.onnx_graph:module_to_onnx"},
        "tfnas.closing": dict.fromkeys(("CertifyConfig", "CloseConfig", "certify_file", "close_run"), _FACE),
        "tfnas.evaluation": dict.fromkeys(("EvaluationConfig", "PredictConfig", "evaluate", "predict"), _FACE),
        "tfnas.latency": {
            **dict.fromkeys(("BuildConfig", "CheckConfig", "LatencyTable", "build_table", "check_table"), _FACE),
            "default_table_path": "tfnas.latency.default_table",
            "latency_key": "tfnas.spaces.mbconv.table_keys",
        },
        "tfnas.latency.measuring": {},
        "tfnas.latency.measuring.conditions": {"Conditions": "tfnas.latency.table_contents"},
        "tfnas.latency.measuring.onnx_graph": {"onnx_bytes_of": "tfnas.bench.onnx_graph:module_to_onnx"},
        "tfnas.latency.measuring.requirements": dict.fromkeys(
            ("require_conditions", "required_library"), "tfnas.bench.runtime"
        ),
        "tfnas.latency.runtimes": {"Runtime": "tfnas.bench.runtime"},
        "tfnas.reranking": dict.fromkeys(("RerankConfig", "rerank"), _FACE),
        "tfnas.searching": dict.fromkeys(("SearchConfig", "search"), _FACE),
        "tfnas.structures": {
            **dict.fromkeys(("Structure", "StructureNetwork"), _FACE),
            "book_counts": f"{_ZEN}.structure_counts:reference_counts",
            "load_published": f"{_ZEN}.structure_network",
            "real_counts": f"{_ZEN}.structure_counts",
        },
        "tfnas.training": dict.fromkeys(("TrainConfig", "retrain"), _FACE),
        "tfnas.zeroshot": {
            "effectiveness": "tfnas.proxies.entropy",
            "find_score": "tfnas.proxies.score",
            "score_names": "tfnas.proxies.score",
        },
        "tfnas.zeroshot.incorporated": {"PUBLISHED_WEIGHTS": "tfnas.proxies.incorporated"},
    }
)

# These are modules of the package today, which look the names up themselves.
_STILL_THERE = {"tfnas.bench.onnx_graph", "tfnas.evaluation", "tfnas.latency", "tfnas.searching", "tfnas.training"}


def moved_names(module: str) -> Callable[[str], object]:
    """The `__getattr__` of a module that once held the names in `MOVED`."""

    def look_up(name: str) -> object:
        home = MOVED[module].get(name)
        if home is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, new_name = home.partition(":")
        new_name = new_name or name
        warnings.warn(f"{module}.{name} is now {place}.{new_name}", DeprecationWarning, stacklevel=2)
        return getattr(import_module(place), new_name)

    return look_up


class _MovedModules(MetaPathFinder, Loader):
    """Makes the modules of `MOVED` that are no longer there when somebody imports them."""

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """A spec of a module that has moved; of others none."""
        return ModuleSpec(fullname, self, is_package=True) if fullname in MOVED.keys() - _STILL_THERE else None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its lookup."""
        module.__getattr__ = moved_names(module.__name__)  # type: ignore[method-assign]


def install() -> None:
    """Let `import` find modules that have moved."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MovedModules())  # before folders that an upgrade leaves empty, which are packages too
