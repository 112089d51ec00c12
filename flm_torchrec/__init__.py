"""Foundation language models for recommendation on TorchRec tables.

The names below are loaded when they are first asked for: importing this package imports no torch.

Example:
    from flm_torchrec import load_yaml, shard, train_pipeline
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flm_torchrec.data.batch import FLMBatch, TensorBatch
    from flm_torchrec.data.prepare import prepare
    from flm_torchrec.model import FLM
    from flm_torchrec.tasks.alignment import Alignment
    from flm_torchrec.tasks.cross import FM, DCNv2
    from flm_torchrec.tasks.heads import Heads
    from flm_torchrec.tasks.mlm import MaskedLM
    from flm_torchrec.tasks.ranking import LoggedRanking, Ranking
    from flm_torchrec.trainable import FLMTrain, Objective
    from flm_torchrec.training.loop import train
    from flm_torchrec.training.pipeline import train_pipeline
    from flm_torchrec.training.runtime import start
    from flm_torchrec.training.sharding import shard
    from flm_torchrec.typed_yaml import load_yaml
    from flm_torchrec.views.fusion import GatedFusion, MeanFusion, WeightedFusion
    from flm_torchrec.views.history import CausalHistory
    from flm_torchrec.views.mean_history import MeanHistory
    from flm_torchrec.views.set_history import SetHistory
    from flm_torchrec.views.sparse import SparseView, embedding_bags
    from flm_torchrec.views.text import TextView
    from flm_torchrec.views.vector import VectorView

__all__ = [
    "FLM",
    "FM",
    "Alignment",
    "CausalHistory",
    "DCNv2",
    "FLMBatch",
    "FLMTrain",
    "GatedFusion",
    "Heads",
    "LoggedRanking",
    "MaskedLM",
    "MeanFusion",
    "MeanHistory",
    "Objective",
    "Ranking",
    "SetHistory",
    "SparseView",
    "TensorBatch",
    "TextView",
    "VectorView",
    "WeightedFusion",
    "embedding_bags",
    "load_yaml",
    "prepare",
    "shard",
    "start",
    "train",
    "train_pipeline",
]

_MODULE_OF = {
    "FLM": "model",
    "FM": "tasks.cross",
    "Alignment": "tasks.alignment",
    "CausalHistory": "views.history",
    "DCNv2": "tasks.cross",
    "FLMBatch": "data.batch",
    "FLMTrain": "trainable",
    "GatedFusion": "views.fusion",
    "Heads": "tasks.heads",
    "LoggedRanking": "tasks.ranking",
    "MaskedLM": "tasks.mlm",
    "MeanFusion": "views.fusion",
    "MeanHistory": "views.mean_history",
    "Objective": "trainable",
    "Ranking": "tasks.ranking",
    "SetHistory": "views.set_history",
    "SparseView": "views.sparse",
    "TensorBatch": "data.batch",
    "TextView": "views.text",
    "VectorView": "views.vector",
    "WeightedFusion": "views.fusion",
    "embedding_bags": "views.sparse",
    "load_yaml": "typed_yaml",
    "prepare": "data.prepare",
    "shard": "training.sharding",
    "start": "training.runtime",
    "train": "training.loop",
    "train_pipeline": "training.pipeline",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    found = globals()[name] = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
