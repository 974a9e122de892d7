"""tfnas: images, a device and X milliseconds in; a network that measures X ms there out.

    import tfnas
    result = tfnas.search(tfnas.SearchConfig(target_lat=15))

Names that need PyTorch are looked up when they are first used, so that importing the package costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.architecture import Architecture
from tfnas.errors import Infeasible, InputError, Interrupted, RunFailed, TfnasError
from tfnas.space import SearchSpace
from tfnas.space_file import space

if TYPE_CHECKING:
    from tfnas import zoo
    from tfnas.export.config import ExportConfig
    from tfnas.export.exporting import export_model
    from tfnas.export.reading import OnnxModel
    from tfnas.export.report import ExportReport
    from tfnas.latency.fitting.choice import Choice
    from tfnas.latency.fitting.fit import fit_widths
    from tfnas.latency.fitting.meet import meet_target
    from tfnas.latency.table import LatencyTable
    from tfnas.model_file import TrainedModel, load
    from tfnas.nn.counting import Counts, count
    from tfnas.nn.features import FeatureNetwork
    from tfnas.nn.network import Network
    from tfnas.nn.weights import load_weights
    from tfnas.searching.config import SearchConfig
    from tfnas.searching.loop import SearchResult, search
    from tfnas.structures.network import StructureNetwork
    from tfnas.structures.structure import Structure
    from tfnas.training.config import TrainConfig
    from tfnas.training.loop import TrainResult, retrain
    from tfnas.zeroshot.scoring import score

_HOMES = {
    "Choice": "tfnas.latency.fitting.choice",
    "Counts": "tfnas.nn.counting",
    "ExportConfig": "tfnas.export.config",
    "ExportReport": "tfnas.export.report",
    "FeatureNetwork": "tfnas.nn.features",
    "LatencyTable": "tfnas.latency.table",
    "Network": "tfnas.nn.network",
    "OnnxModel": "tfnas.export.reading",
    "SearchConfig": "tfnas.searching.config",
    "SearchResult": "tfnas.searching.loop",
    "Structure": "tfnas.structures.structure",
    "StructureNetwork": "tfnas.structures.network",
    "TrainedModel": "tfnas.model_file",
    "TrainConfig": "tfnas.training.config",
    "TrainResult": "tfnas.training.loop",
    "count": "tfnas.nn.counting",
    "export_model": "tfnas.export.exporting",
    "fit_widths": "tfnas.latency.fitting.fit",
    "load": "tfnas.model_file",
    "load_weights": "tfnas.nn.weights",
    "meet_target": "tfnas.latency.fitting.meet",
    "retrain": "tfnas.training.loop",
    "score": "tfnas.zeroshot.scoring",
    "search": "tfnas.searching.loop",
    "zoo": "tfnas.zoo",
}

__all__ = [
    "Architecture",
    "Choice",
    "Counts",
    "ExportConfig",
    "ExportReport",
    "FeatureNetwork",
    "Infeasible",
    "InputError",
    "Interrupted",
    "LatencyTable",
    "Network",
    "OnnxModel",
    "RunFailed",
    "SearchConfig",
    "SearchResult",
    "SearchSpace",
    "Structure",
    "StructureNetwork",
    "TfnasError",
    "TrainConfig",
    "TrainResult",
    "TrainedModel",
    "count",
    "export_model",
    "fit_widths",
    "load",
    "load_weights",
    "meet_target",
    "retrain",
    "score",
    "search",
    "space",
    "zoo",
]
__version__ = "0.1.0"


__getattr__ = lazy_names("tfnas", _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
