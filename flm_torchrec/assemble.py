"""The parts of a run put together on the ranks of a job: data, text vectors, sharded model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.model_parallel import DistributedModelParallel, get_unwrapped_module
from torchrec.optim.keyed import CombinedOptimizer

from flm_torchrec.build import build_model, dense_optimizer
from flm_torchrec.build_cold import fill_cold_items
from flm_torchrec.build_data import build_collator, build_sampler, check_shares, open_data
from flm_torchrec.build_factors import factors_of, label_tables
from flm_torchrec.build_linear import linear_weights
from flm_torchrec.build_plan import check_tables_are_there, own_sharding, run_planner, table_rows
from flm_torchrec.config import RunConfig
from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.domains import with_texts
from flm_torchrec.data.preparing.hidden_texts import texts_without
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.sampling import LogSampler, UserSampler
from flm_torchrec.data.text import Texts
from flm_torchrec.encoder import TextEncoder, load_encoder, tokenised
from flm_torchrec.errors import UserError
from flm_torchrec.retrieval import Retrieval
from flm_torchrec.trainable import FLMTrain
from flm_torchrec.training import checkpoint
from flm_torchrec.training.markers import read_marker
from flm_torchrec.training.pipeline import Pipeline, train_pipeline
from flm_torchrec.training.runtime import Runtime, all_gather
from flm_torchrec.training.sharding import shard
from flm_torchrec.transfer import check_origin, moved, places
from flm_torchrec.views.adapters import is_adapter, without_adapters
from flm_torchrec.views.text_cache import states_below, text_vectors

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assembly:
    """A run, ready to train or to score."""

    config: RunConfig
    runtime: Runtime
    dataset: Dataset
    encoder: TextEncoder | None
    collator: Collator
    hidden_texts: Texts | None  # those of the items without the attribute that is hidden
    sampler: UserSampler | LogSampler | None  # None: steps of a corpus alone draw nothing
    dmp: DistributedModelParallel
    optimizer: CombinedOptimizer

    @property
    def model(self) -> FLMTrain:
        """The model inside its wrapper."""
        model = get_unwrapped_module(self.dmp)
        assert isinstance(model, FLMTrain)
        return model

    def pipeline(self) -> Pipeline:
        """A pipeline that trains the model."""
        return train_pipeline(
            self.dmp,
            self.optimizer,
            self.runtime.device,
            allow_unpipelined=self.config.train.allow_unpipelined,
        )

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

    def refresh_text(self, *, keep: bool) -> None:
        """Encode the texts with the encoder as it stands, and what follows from them; called by all
        ranks after weights are loaded, and now and then while the encoder trains. `keep` leaves the
        vectors on disk."""
        texts, view = self.collator.text, self.model.flm.text_view
        if texts is not None and view is not None:
            view.vectors = self.encode(texts, keep=keep)
            if self.hidden_texts is not None:
                view.hidden_vectors = self.encode(self.hidden_texts, keep=keep)
        fill_cold_items(self.model, self.dataset)

    def keep_layers_below(self) -> None:
        """Of an encoder whose last layers train, run those below once for all texts instead of in
        each step; called by all ranks after weights are loaded."""
        texts, view, text = self.collator.text, self.model.flm.text_view, self.config.views.text
        if texts is None or view is None or text is None or text.mode != "last_n":
            return
        view.below = states_below(
            view,
            texts,
            last=text.last,
            folder=self._prepared,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
            gather=all_gather,
        )

    def allocate_ranks(self, done: int) -> None:
        """Of adapters that share out their rank while they train; called by all ranks after each
        step, while its gradients are there."""
        view = self.model.flm.text_view
        if view is not None:
            view.allocate_ranks(done, steps=self.config.train.steps)

    @property
    def _prepared(self) -> Path:
        return Location.of(self.config.data.home).made / "prepared"

    def encode(self, texts: Texts, *, keep: bool) -> Tensor:
        """(names, items, H) the vectors of texts as the encoder stands; called by all ranks."""
        view = self.model.flm.text_view
        assert view is not None, "the run reads no texts"
        vectors = text_vectors(
            view,
            texts,
            folder=self._prepared if keep else None,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
            gather=all_gather,
            known=texts is self.collator.text,
        )
        return vectors.to(self.runtime.device)

    def check_data(self, path: Path, *, other: bool = False) -> None:
        """Raise UserError unless the checkpoint at `path` was trained on this data, or with `other`
        on data from which this may start."""
        known = checkpoint.read_meta(path)
        folder = ", ".join(self.config.data.folders.values())
        check_origin(path, known, self.dataset, folder=folder, other=other)

    def start_from(self, path: Path) -> checkpoint.Matched:
        """Load what means the same in the checkpoint at `path`, a run of this or other data; called
        by all ranks."""
        self.check_data(path, other=True)
        fresh = moved(checkpoint.read_meta(path), places(self.config, self.dataset))
        shapes = {f"model.{name}": list(p.shape) for name, p in self.model.named_parameters()}
        for entry, shape in read_marker(path)["shapes"].items():
            is_of_model = entry.startswith("model.") and is_adapter(entry)
            if is_of_model and shapes.get(entry) != shape:
                raise UserError(
                    f"init: {path} holds an adapter of its text encoder, {entry}, that this model "
                    "has no place for; allowed: views.text with the mode and rank of that run"
                )
        return checkpoint.load_matching(
            path, self.dmp, grown=True, fresh=fresh, known_as=without_adapters
        )


def first_rank_first(runtime: Runtime, work: Callable[[], T]) -> T:
    """Rank 0 does `work` (and leaves files behind), then the others do; a UserError of rank 0 is
    raised by all."""
    told: list[str | None] = [None]
    result = None
    if runtime.rank == 0:
        try:
            result = work()
        except UserError as error:
            told[0] = str(error)
    dist.broadcast_object_list(told)
    if told[0] is not None:
        raise UserError(told[0])
    return work() if result is None else result


def hidden_texts(config: RunConfig, dataset: Dataset, encoder: TextEncoder | None) -> Texts | None:
    """The items' texts without the attribute of `tasks.cloze`; None without the task or texts."""
    cloze, text, items = config.tasks.cloze, config.views.text, dataset.items
    if cloze is None or encoder is None or text is None or items is None or not items.text:
        return None
    without = replace(items, text=_without(config, dataset, cloze.attribute))
    return tokenised(replace(dataset, items=without, corpus=[]), encoder, text)


def _without(config: RunConfig, dataset: Dataset, attribute: str) -> dict[str, list[str]]:
    """The items' texts without an attribute, which only those of its own domain can tell."""
    if dataset.domains is None:
        return texts_without(config.data.home, dataset, attribute)
    name, _, own = attribute.partition("_")
    number, folder = dataset.domains.number(name), config.data.domains[name]
    texts = texts_without(folder, dataset.domains.datasets[number - 1], own)
    return with_texts(dataset, number, texts)


def assemble(config: RunConfig, runtime: Runtime, *, training: bool = True) -> Assembly:
    """Build everything a run needs on every rank of `runtime`.

    Text vectors are there after `refresh_text`. Without `training` the tables' optimizer is one
    that every device has, and any number of ranks will do.
    """
    dataset = first_rank_first(runtime, partial(open_data, config))
    if training:
        check_shares(config, dataset, runtime.world_size)
    sampler = build_sampler(config, dataset)
    torch.manual_seed(config.train.seed)  # what isn't sharded starts equal on all ranks
    encoder = load_encoder(config.views.text) if config.views.text else None
    model = build_model(config, dataset, encoder, gather=all_gather)
    check_tables_are_there(config, model)
    if model.flm.linear is not None:
        weights = first_rank_first(runtime, partial(linear_weights, config, dataset))
        model.flm.linear.weight = weights.to(runtime.device)
    factors = factors_of(model)
    if factors is not None:
        tables = first_rank_first(runtime, partial(label_tables, config, dataset))
        factors.table, factors.common = (tensor.to(runtime.device) for tensor in tables)
    texts = None
    if config.views.text is not None and encoder is not None:
        texts = tokenised(dataset, encoder, config.views.text)
    collator = build_collator(
        config, dataset, texts=texts, rank=runtime.rank, world_size=runtime.world_size
    )
    # Ranks fill their shards of a table: from one generator they would all draw the same rows.
    torch.manual_seed((config.train.seed + 1) * 65_537 + runtime.rank)
    dmp, optimizer = shard(
        model,
        runtime.device,
        batch_size=table_rows(config, dataset, runtime.world_size),
        sparse_optimizer=config.train.sparse.optimizer if training else "sgd",
        sparse_lr=config.train.sparse.lr,
        dense_optimizer=partial(dense_optimizer, config),
        constraints=own_sharding(config),
        default=config.sharding.get("default", "auto"),
        # Scores are those of whole numbers, on any number of ranks.
        communication=config.train.sparse.communication if training else "fp32",
        planner=run_planner(config, dataset, runtime) if training else None,
    )
    return Assembly(
        config=config,
        runtime=runtime,
        dataset=dataset,
        encoder=encoder,
        collator=collator,
        hidden_texts=hidden_texts(config, dataset, encoder),
        sampler=sampler,
        dmp=dmp,
        optimizer=optimizer,
    )
