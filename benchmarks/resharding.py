"""One checkpoint saved by some ranks under one sharding type, loaded by others under another.

What is loaded is saved again and compared, entry by entry, with what it was loaded from; then the
next losses with those that the first ranks had, or where the row-wise state of column shards was
regrouped, with those of one rank that loads the same.
"""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.batch import TensorBatch
from flm_torchrec.planning.request import meta_collection
from flm_torchrec.planning.tables import Table
from flm_torchrec.training import checkpoint
from flm_torchrec.training.loop import train
from flm_torchrec.training.pipeline import train_pipeline
from flm_torchrec.training.runtime import Runtime, all_gather
from flm_torchrec.training.sharding import shard
from flm_torchrec.training.stored import read_whole

OPTIMIZERS = ("rowwise_adagrad", "adagrad")
ROWS = {"user": 40, "item": 30}
_DIM = 256  # TorchRec splits it into two column shards
_SAMPLES = 16  # of a step, over all ranks
_SAVED, _MORE = 3, 5  # steps
_LOSS, _STATE = 1e-4, 1e-6  # relative differences that are none
_IN_COLUMNS = ("column_wise", "table_column_wise", "grid_shard")


@dataclass(frozen=True, slots=True)
class Place:
    """So many ranks, and the sharding type of their tables."""

    world_size: int
    sharding: str

    def __str__(self) -> str:
        return f"{self.world_size}-{self.sharding}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(TensorBatch):
    """Samples of one rank."""

    features: KeyedJaggedTensor
    labels: Tensor  # (samples,) 0 or 1


class Model(nn.Module):
    """Two tables under a linear layer -> losses (1,), and the same as output."""

    def __init__(self) -> None:
        super().__init__()
        self.ebc = meta_collection(
            [Table(name=name, rows=rows, dim=_DIM) for name, rows in ROWS.items()]
        )
        self.score = nn.Linear(_DIM * len(ROWS), 1)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> losses (1,), the same without gradients."""
        pooled = self.ebc(batch.features)
        score = self.score(torch.cat([pooled["user"], pooled["item"]], dim=1)).squeeze(1)
        losses = F.binary_cross_entropy_with_logits(score, batch.labels)[None]
        return losses, losses.detach()


def save(runtime: Runtime, folder: Path, sharding: str, optimizer: str) -> None:
    """Train a little and leave a checkpoint in `folder`, and the next losses after it."""
    dmp, combined = _made(runtime, sharding, optimizer)
    _losses(runtime, dmp, combined, start=0, steps=_SAVED)
    checkpoint.save(folder, _SAVED, dmp, combined, keep=1, meta={})
    _keep(runtime, folder / "losses.json", _losses(runtime, dmp, combined, start=_SAVED))


def load(
    runtime: Runtime, folder: Path, sharding: str, optimizer: str, out: Path
) -> dict[str, Any]:
    """What is found when the checkpoint that `save` left in `folder` is loaded; called by all
    ranks, `out` is for what is saved again."""
    path, again = checkpoint.latest(folder), out / f"{runtime.world_size}-{sharding}"
    assert path is not None
    dmp, combined = _made(runtime, sharding, optimizer)
    with redirect_stdout(io.StringIO()) as told:
        checkpoint.load(path, dmp, combined)
    checkpoint.save(again, _SAVED, dmp, combined, keep=1, meta={})
    losses = _losses(runtime, dmp, combined, start=_SAVED)
    lines = told.getvalue().splitlines()
    if runtime.rank > 0:
        return {}
    reference = folder / "losses.json"
    if any("column shard" in line for line in lines):
        reference = folder / f"regrouped-{sharding in _IN_COLUMNS}.json"
        if not reference.exists() and runtime.world_size == 1:
            _keep(runtime, reference, losses)
    known = json.loads(reference.read_text(encoding="utf-8"))
    saved, loaded = read_whole(path), read_whole(again / path.name)
    apart = max(abs(one - other) / abs(one) for one, other in zip(known, losses, strict=True))
    differing = _differing(saved, loaded, exactly=not lines)
    return {
        "converted": lines,
        "differing": differing,
        "losses_apart": apart,
        "passed": not differing and apart < _LOSS,
    }


def described(source: Place, target: Place, optimizer: str) -> dict[str, Any]:
    """The key of a pair among the results."""
    return {"from": asdict(source), "to": asdict(target), "optimizer": optimizer}


def _made(
    runtime: Runtime, sharding: str, optimizer: str
) -> tuple[DistributedModelParallel, CombinedOptimizer]:
    # Another seed by place: what is equal afterwards was loaded.
    torch.manual_seed(runtime.world_size + 10 * len(sharding))
    return shard(
        Model(),
        runtime.device,
        batch_size=_SAMPLES,
        sparse_optimizer=optimizer,
        sparse_lr=0.05,
        dense_optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=1e-2),
        default=sharding,
    )


def _batches(runtime: Runtime, start: int, steps: int) -> Iterator[Batch]:
    each = _SAMPLES // runtime.world_size
    ours = slice(runtime.rank * each, (runtime.rank + 1) * each)
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        ids = [torch.randint(rows, (_SAMPLES,), generator=generator) for rows in ROWS.values()]
        labels = torch.randint(0, 2, (_SAMPLES,), generator=generator).float()
        yield Batch(
            features=KeyedJaggedTensor.from_lengths_sync(
                list(ROWS),
                torch.cat([values[ours] for values in ids]),
                torch.ones(each * len(ROWS), dtype=torch.int64),
            ),
            labels=labels[ours],
        )


def _losses(
    runtime: Runtime,
    dmp: DistributedModelParallel,
    optimizer: CombinedOptimizer,
    *,
    start: int,
    steps: int = _MORE,
) -> list[float]:
    """Train; -> the loss of each step, the mean over the ranks."""
    found: list[Tensor] = []
    train(
        train_pipeline(dmp, optimizer, runtime.device),
        _batches(runtime, start, steps),
        start=start,
        steps=start + steps,
        on_step=lambda _, losses: found.append(losses),
        seed=0,
    )
    return all_gather(torch.stack(found).T).mean(0).tolist()


def _keep(runtime: Runtime, path: Path, losses: list[float]) -> None:
    if runtime.rank == 0:
        path.write_text(json.dumps(losses), encoding="utf-8")


def _differing(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], *, exactly: bool
) -> list[str]:
    """The entries that only one has, or that differ; unless `exactly`, of optimizer state in what
    all forms of it have in common."""
    if not exactly:
        one, other = _in_common(one), _in_common(other)
    tolerance = 0.0 if exactly else _STATE
    return sorted(one.keys() ^ other.keys()) + [
        name
        for name in sorted(one.keys() & other.keys())
        if one[name].shape != other[name].shape
        or not torch.allclose(one[name], other[name], rtol=tolerance, atol=0.0)
    ]


def _in_common(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries with the tables' sums under one name, row-wise ones as the mean over columns."""
    found = {}
    for name, value in entries.items():
        parameter, _, key = name.removeprefix("optimizer.").partition(".weight.")
        table = entries.get(f"model.{parameter}.weight")
        if name.startswith("model.") or table is None or ".embedding_bags." not in parameter:
            found[name] = value
        elif key != "step":
            is_rowwise = value.numel() != table.numel()
            rows = value.view(-1, len(table)).double().mean(0) if is_rowwise else value
            found[f"sums of {parameter}"] = rows
    return found
