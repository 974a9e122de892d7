"""tfnas: images, a device and X milliseconds in; a network that measures X ms there out.

    import tfnas
    result = tfnas.search(tfnas.SearchConfig(target_lat=15))

Names that need PyTorch are looked up when they are first used, so that importing the package costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.core import __version__
from tfnas.core.architecture import Architecture
from tfnas.core.errors import Infeasible, InputError, Interrupted, RunFailed, TfnasError
from tfnas.core.space import SearchSpace
from tfnas.spaces.mbconv.space_file import space
from tfnas.utils.lazy_names import install, lazy_names

if TYPE_CHECKING:
    from tfnas import zoo
    from tfnas.bench.bench_config import BuildConfig, CheckConfig
    from tfnas.bench.build_structure_table import build_structure_table
    from tfnas.bench.build_table import build_table
    from tfnas.bench.check_table import check_table
    from tfnas.core.choice import Choice
    from tfnas.core.units import Counts
    from tfnas.evaluation.evaluating import evaluate
    from tfnas.evaluation.evaluation_config import EvaluationConfig, PredictConfig
    from tfnas.evaluation.predicting import predict
    from tfnas.export.export_config import ExportConfig
    from tfnas.export.export_report import ExportReport
    from tfnas.export.exporting import export_model
    from tfnas.export.onnx_model import OnnxModel
    from tfnas.latency.cost_table import LatencyTable
    from tfnas.latency.meet_target import meet_target
    from tfnas.latency.structure_table import StructureTable, load_table
    from tfnas.latency.widths import fit_widths
    from tfnas.nn.counting import count
    from tfnas.nn.network import FeatureNetwork, Network
    from tfnas.nn.weights import load_weights
    from tfnas.proxies.rank_combination import combine_ranks
    from tfnas.proxies.score import score
    from tfnas.runs.model_file import TrainedModel, load
    from tfnas.searching.differentiable.differentiable_search import SearchResult, search
    from tfnas.searching.differentiable.search_config import SearchConfig
    from tfnas.searching.evolution.evolutionary_search import EvolveResult, evolve
    from tfnas.searching.evolution.evolve_config import EvolveConfig
    from tfnas.searching.evolution.presets import preset_config
    from tfnas.searching.refitting.certify import certify_file
    from tfnas.searching.refitting.refit_config import CertifyConfig, CloseConfig
    from tfnas.searching.refitting.refit_run import close_run
    from tfnas.searching.reranking.rerank import rerank
    from tfnas.searching.reranking.rerank_config import RerankConfig
    from tfnas.spaces.families import build_network, load_architecture, parse_architecture, register_family
    from tfnas.spaces.zen.block_names import register_block
    from tfnas.spaces.zen.structure import Structure
    from tfnas.spaces.zen.structure_network import StructureNetwork
    from tfnas.spaces.zen.super_block import BlockType
    from tfnas.training.retraining import TrainResult, retrain
    from tfnas.training.train_config import TrainConfig

_HOMES = {
    "BlockType": "tfnas.spaces.zen.super_block",
    "BuildConfig": "tfnas.bench.bench_config",
    "CertifyConfig": "tfnas.searching.refitting.refit_config",
    "CheckConfig": "tfnas.bench.bench_config",
    "Choice": "tfnas.core.choice",
    "CloseConfig": "tfnas.searching.refitting.refit_config",
    "Counts": "tfnas.core.units",
    "EvaluationConfig": "tfnas.evaluation.evaluation_config",
    "EvolveConfig": "tfnas.searching.evolution.evolve_config",
    "EvolveResult": "tfnas.searching.evolution.evolutionary_search",
    "ExportConfig": "tfnas.export.export_config",
    "ExportReport": "tfnas.export.export_report",
    "FeatureNetwork": "tfnas.nn.network",
    "LatencyTable": "tfnas.latency.cost_table",
    "StructureTable": "tfnas.latency.structure_table",
    "Network": "tfnas.nn.network",
    "OnnxModel": "tfnas.export.onnx_model",
    "PredictConfig": "tfnas.evaluation.evaluation_config",
    "RerankConfig": "tfnas.searching.reranking.rerank_config",
    "SearchConfig": "tfnas.searching.differentiable.search_config",
    "SearchResult": "tfnas.searching.differentiable.differentiable_search",
    "Structure": "tfnas.spaces.zen.structure",
    "StructureNetwork": "tfnas.spaces.zen.structure_network",
    "TrainConfig": "tfnas.training.train_config",
    "TrainResult": "tfnas.training.retraining",
    "TrainedModel": "tfnas.runs.model_file",
    "build_network": "tfnas.spaces.families",
    "build_structure_table": "tfnas.bench.build_structure_table",
    "build_table": "tfnas.bench.build_table",
    "load_table": "tfnas.latency.structure_table",
    "certify_file": "tfnas.searching.refitting.certify",
    "check_table": "tfnas.bench.check_table",
    "close_run": "tfnas.searching.refitting.refit_run",
    "combine_ranks": "tfnas.proxies.rank_combination",
    "count": "tfnas.nn.counting",
    "evaluate": "tfnas.evaluation.evaluating",
    "evolve": "tfnas.searching.evolution.evolutionary_search",
    "export_model": "tfnas.export.exporting",
    "fit_widths": "tfnas.latency.widths",
    "load": "tfnas.runs.model_file",
    "load_architecture": "tfnas.spaces.families",
    "load_weights": "tfnas.nn.weights",
    "meet_target": "tfnas.latency.meet_target",
    "parse_architecture": "tfnas.spaces.families",
    "predict": "tfnas.evaluation.predicting",
    "preset_config": "tfnas.searching.evolution.presets",
    "register_block": "tfnas.spaces.zen.block_names",
    "register_family": "tfnas.spaces.families",
    "rerank": "tfnas.searching.reranking.rerank",
    "retrain": "tfnas.training.retraining",
    "score": "tfnas.proxies.score",
    "search": "tfnas.searching.differentiable.differentiable_search",
    "zoo": "tfnas.zoo",
}

__all__ = [
    "Architecture",
    "BlockType",
    "BuildConfig",
    "CertifyConfig",
    "CheckConfig",
    "Choice",
    "CloseConfig",
    "Counts",
    "EvaluationConfig",
    "EvolveConfig",
    "EvolveResult",
    "ExportConfig",
    "ExportReport",
    "FeatureNetwork",
    "Infeasible",
    "InputError",
    "Interrupted",
    "LatencyTable",
    "Network",
    "OnnxModel",
    "PredictConfig",
    "RerankConfig",
    "RunFailed",
    "SearchConfig",
    "SearchResult",
    "SearchSpace",
    "Structure",
    "StructureNetwork",
    "StructureTable",
    "TfnasError",
    "TrainConfig",
    "TrainResult",
    "TrainedModel",
    "__version__",
    "build_network",
    "build_structure_table",
    "build_table",
    "certify_file",
    "check_table",
    "close_run",
    "combine_ranks",
    "count",
    "evaluate",
    "evolve",
    "export_model",
    "fit_widths",
    "load",
    "load_architecture",
    "load_table",
    "load_weights",
    "meet_target",
    "parse_architecture",
    "predict",
    "preset_config",
    "register_block",
    "register_family",
    "rerank",
    "retrain",
    "score",
    "search",
    "space",
    "zoo",
]


__getattr__ = lazy_names("tfnas", _HOMES)
install()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
