"""An FLM told by YAML and a DLRM written by hand, trained side by side on the same log."""

import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flm_benchmarks.dlrm import DLRMTrain, Samples
from numpy.typing import NDArray
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from flm_torchrec.assemble import Assembly, assemble
from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import TEST, Dataset
from flm_torchrec.data.kjt import ContextReader, features_kjt
from flm_torchrec.data.loader import load
from flm_torchrec.data.sampling import LogSampler
from flm_torchrec.evaluation.metrics import auc
from flm_torchrec.measure import edge_quality
from flm_torchrec.training.optimizers import scale_dense_lr
from flm_torchrec.training.pipeline import Pipeline, paused, train_pipeline
from flm_torchrec.training.runtime import Runtime, start
from flm_torchrec.training.sharding import shard
from flm_torchrec.typed_yaml import load_yaml

BLOCK = 15  # steps that one model takes before it is the other's turn
BOTTOM, TOP = [64], [128, 64]  # of the DLRM
TEST_ROWS = 8192  # scored at once


class SampleReader:
    """All that is known of interactions, as a DLRM reads it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.context = ContextReader(dataset.interactions.context)

    def __call__(self, rows: NDArray[np.int64]) -> Samples:
        """rows (B,) of the interactions -> B samples"""
        log = self.dataset.interactions
        numbers = [log.numbers.take(rows, axis=0, mode="clip")]
        context = self.context.kjt(rows)
        parts = [] if context is None else [context]
        for entity, of_log in ((self.dataset.users, log.user), (self.dataset.items, log.item)):
            if entity is not None:
                row = of_log[rows]
                numbers.append(entity.numbers[row])
                parts.append(features_kjt(entity.columns, row))
        # Put together by numpy: in a worker torch would start threads of its own.
        return Samples(
            dense=torch.from_numpy(np.concatenate(numbers, axis=1)),
            sparse=KeyedJaggedTensor(
                keys=list(chain.from_iterable(part.keys() for part in parts)),
                values=torch.from_numpy(np.concatenate([part.values().numpy() for part in parts])),
                lengths=torch.from_numpy(
                    np.concatenate([part.lengths().numpy() for part in parts])
                ),
            ),
            labels=torch.from_numpy(
                np.stack([label[rows] for label in log.labels.values()], axis=1)
            ),
        )


def build_dlrm(dataset: Dataset, dim: int) -> DLRMTrain:
    """One with a table for every feature that the data has."""
    log = dataset.interactions
    columns = dict(log.context)
    num_numbers = log.numbers.shape[1]
    for entity in (dataset.users, dataset.items):
        if entity is not None:
            columns |= entity.columns
            num_numbers += entity.numbers.shape[1]
    return DLRMTrain(
        {name: column.num_embeddings for name, column in columns.items()},
        num_numbers=num_numbers,
        num_labels=len(log.labels),
        dim=dim,
        bottom=BOTTOM,
        top=TOP,
    )


class Racer:
    """A model in training, a block of steps at a time."""

    def __init__(
        self,
        pipeline: Pipeline,
        batches: Iterator[Any],
        set_lr: Callable[[int], None],
    ) -> None:
        self.pipeline = pipeline
        self.batches = batches
        self.set_lr = set_lr
        self.done = 0
        self.seconds: list[float] = []

    def run(self, steps: int) -> None:
        """Take `steps` steps, each of them timed."""
        for _ in range(steps):
            self.set_lr(self.done)
            begin = time.perf_counter()
            self.pipeline.progress(self.batches)
            self.seconds.append(time.perf_counter() - begin)
            self.done += 1


def dlrm_auc(model: nn.Module, dataset: Dataset) -> dict[str, float]:
    """The test AUC of each label."""
    rows = np.flatnonzero(dataset.interactions.part == TEST)
    read = SampleReader(dataset)
    logits: list[Tensor] = []
    with torch.no_grad():
        for chunk in np.array_split(rows, -(-len(rows) // TEST_ROWS)):
            logits.append(model(read(chunk))[1])
    score = torch.cat(logits)
    found = {}
    for place, (name, values) in enumerate(dataset.interactions.labels.items()):
        label = torch.from_numpy(values[rows])
        is_there = label.isfinite()
        found[f"auc_{name}"] = auc(score[is_there, place], label[is_there])
    return found


def compare(folder: Path, config_file: Path, *, seed: int) -> dict[str, Any]:
    """Train both for the steps that the YAML says; -> test AUC, samples/s and step times."""
    overrides = [f"data.path={folder}", f"train.seed={seed}"]
    config = load_yaml(config_file, RunConfig, overrides)
    with start() as runtime:
        assembly = assemble(config, runtime)
        ours, theirs = racers(assembly, runtime, config)
        for _ in range(-(-config.train.steps // BLOCK)):
            for racer in (ours, theirs):
                racer.run(min(BLOCK, config.train.steps - racer.done))
        with paused(ours.pipeline):
            mine = edge_quality(assembly, part="test")
        with paused(theirs.pipeline) as model:
            other = dlrm_auc(model, assembly.dataset)
        # The blocks stand beside each other in time: what slows the machine slows both.
        pairs = zip(blocks(ours.seconds), blocks(theirs.seconds), strict=True)
        ratios = [other_block / own_block for own_block, other_block in pairs]
    names = [f"auc_{name}" for name in assembly.dataset.interactions.labels]
    return {
        "seed": seed,
        "steps": config.train.steps,
        "rows_a_step": config.data.rows,
        "flm": {name: mine[name] for name in names} | speed(ours.seconds, config.data.rows),
        "dlrm": other | speed(theirs.seconds, config.data.rows),
        "speed_ratio": float(np.median(ratios)),
        "speed_ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
    }


def blocks(seconds: list[float]) -> list[float]:
    """Seconds of each whole block but the first, in which everything warms up."""
    whole = len(seconds) // BLOCK
    return np.array(seconds[: whole * BLOCK]).reshape(whole, BLOCK).sum(1)[1:].tolist()


def speed(seconds: list[float], rows: int) -> dict[str, float]:
    """Of the steps after the first block."""
    median, p90 = np.quantile(seconds[BLOCK:], [0.5, 0.9]).tolist()
    return {"median_ms": 1e3 * median, "p90_ms": 1e3 * p90, "samples_per_s": rows / median}


def racers(assembly: Assembly, runtime: Runtime, config: RunConfig) -> tuple[Racer, Racer]:
    """Both models at their start, with the same batches, optimizers and schedule."""
    dataset, train = assembly.dataset, config.train

    def cosine(done: int) -> float:
        return 0.5 * (1 + np.cos(np.pi * done / train.steps))

    sampler = assembly.sampler
    assert isinstance(sampler, LogSampler), "the data is a log"
    ours = Racer(
        train_pipeline(assembly.dmp, assembly.optimizer, runtime.device),
        load(
            lambda step: assembly.collator.step(sampler, step),
            start=0,
            stop=train.steps,
            workers=config.data.workers,
        ),
        lambda done: scale_dense_lr(assembly.optimizer, cosine(done)),
    )
    read = SampleReader(dataset)
    torch.manual_seed(train.seed)
    dmp, optimizer = shard(
        build_dlrm(dataset, config.views.width),
        runtime.device,
        batch_size=config.data.rows,
        sparse_optimizer=train.sparse.optimizer,
        sparse_lr=train.sparse.lr,
        dense_optimizer=lambda named: torch.optim.AdamW(
            [parameter for _, parameter in named], lr=train.dense.lr, fused=True
        ),
    )
    theirs = Racer(
        train_pipeline(dmp, optimizer, runtime.device),
        load(
            lambda step: read(sampler(step)),
            start=0,
            stop=train.steps,
            workers=config.data.workers,
        ),
        lambda done: scale_dense_lr(optimizer, cosine(done)),
    )
    return ours, theirs
