"""The parts of a run put together on the ranks of a job: data, text vectors, sharded model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel, get_unwrapped_module
from torchrec.optim.keyed import CombinedOptimizer

from flm_torchrec.build import (
    build_collator,
    build_model,
    dense_optimizer,
    load_encoder,
    masked_pool,
    token_table,
)
from flm_torchrec.config import RunConfig
from flm_torchrec.data.collate import Collator, ItemText
from flm_torchrec.data.dataset import VALIDATION, Dataset
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.sampling import sequences
from flm_torchrec.retrieval import Retrieval
from flm_torchrec.trainable import FLMTrain
from flm_torchrec.training.runtime import Runtime, all_gather, barrier
from flm_torchrec.training.sharding import shard
from flm_torchrec.views.text_cache import text_vectors

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assembly:
    """A run, ready to train or to score."""

    config: RunConfig
    runtime: Runtime
    dataset: Dataset
    collator: Collator
    dmp: DistributedModelParallel
    optimizer: CombinedOptimizer

    @property
    def model(self) -> FLMTrain:
        """The model inside its wrapper."""
        model = get_unwrapped_module(self.dmp)
        assert isinstance(model, FLMTrain)
        return model

    def retrieval(self) -> Retrieval:
        """Encode every item as the model stands now; called by all ranks."""
        runtime = self.runtime
        return Retrieval(
            self.model,
            self.collator,
            device=runtime.device,
            rank=runtime.rank,
            world_size=runtime.world_size,
            gather=all_gather,
        )

    def refresh_text(self) -> None:
        """Renew the cached vectors of a text encoder that trains; called by all ranks."""
        text, view = self.config.views.text, self.model.flm.text_view
        if text is None or text.mode == "frozen" or self.collator.text is None or view is None:
            return
        self.collator.text.vectors.copy_(
            text_vectors(
                view,
                self.collator.text.table,
                folder=None,
                rank=self.runtime.rank,
                world_size=self.runtime.world_size,
                gather=all_gather,
            )
        )


def first_rank_first(runtime: Runtime, work: Callable[[], T]) -> T:
    """Rank 0 does `work` (and leaves files behind), then the others do."""
    result = work() if runtime.rank == 0 else None
    barrier()
    return work() if result is None else result


def assemble(config: RunConfig, runtime: Runtime) -> Assembly:
    """Build everything a run needs on every rank of `runtime`."""
    dataset = first_rank_first(runtime, partial(prepare, config.data.path))
    torch.manual_seed(config.train.seed)  # what isn't sharded starts equal on all ranks
    encoder = load_encoder(config.views.text) if config.views.text else None
    model = build_model(config, dataset, encoder)
    item_text = None
    if config.views.text is not None and encoder is not None:
        table = token_table(dataset, encoder, config.views.text)
        view = model.flm.text_view
        assert view is not None
        vectors = text_vectors(
            view.to(runtime.device),
            table,
            folder=Path(config.data.path) / "prepared",
            rank=runtime.rank,
            world_size=runtime.world_size,
            gather=all_gather,
        )
        item_text = ItemText(table=table, vectors=vectors, masked_pool=masked_pool(table))
    collator = build_collator(
        config,
        dataset,
        sequences(dataset.interactions, before_part=VALIDATION),
        text=item_text,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    constraints = {table: kind for table, kind in config.sharding.items() if table != "default"}
    dmp, optimizer = shard(
        model,
        runtime.device,
        batch_size=max(config.data.users // runtime.world_size, len(dataset.items.ids)),
        sparse_optimizer=config.train.sparse.optimizer,
        sparse_lr=config.train.sparse.lr,
        dense_optimizer=partial(dense_optimizer, config),
        constraints=constraints,
        default=config.sharding.get("default", "auto"),
    )
    return Assembly(
        config=config,
        runtime=runtime,
        dataset=dataset,
        collator=collator,
        dmp=dmp,
        optimizer=optimizer,
    )
