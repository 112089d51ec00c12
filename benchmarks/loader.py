"""What batches cost: the loader alone, and a step that waits for it against one that doesn't."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from flm_torchrec.assemble import Assembly, assemble
from flm_torchrec.config import RunConfig
from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.data.loader import load
from flm_torchrec.training.pipeline import train_pipeline
from flm_torchrec.training.runtime import start
from flm_torchrec.typed_yaml import load_yaml

BLOCK = 20  # steps from one source before it is the other's turn
SKIPPED = 4  # of them, at its start: the pipeline has drawn their batches from the other source
ALONE = 300


def batches(assembly: Assembly, start: int, stop: int) -> Iterator[FLMBatch]:
    """Of steps `start` to `stop`, from one worker."""
    collator, sampler = assembly.collator, assembly.sampler
    return load(lambda step: collator.step(sampler, step), start=start, stop=stop, workers=1)


def loader_alone(assembly: Assembly) -> list[float]:
    """Seconds that each batch takes one worker when nothing else is done."""
    seconds, begin = [], time.perf_counter()
    for _ in batches(assembly, 0, ALONE):
        now = time.perf_counter()
        seconds.append(now - begin)
        begin = now
    return seconds[SKIPPED:]


def alternating(assembly: Assembly) -> Iterator[FLMBatch]:
    """Blocks of batches, each twice: from memory and from the loader, in turn one or the other
    first."""
    for pair in count():
        steps = pair * BLOCK, (pair + 1) * BLOCK
        memory = list(batches(assembly, *steps))
        first = [memory, batches(assembly, *steps)]
        for source in first if pair % 2 == 0 else reversed(first):
            yield from source


def measure(config_file: Path, folder: Path, *, pairs: int) -> dict[str, Any]:
    """Median seconds of a batch and of a step, and what a step takes longer with the loader."""
    config = load_yaml(config_file, RunConfig, [f"data.path={folder}"])
    with start() as runtime:
        assembly = assemble(config, runtime)
        alone = loader_alone(assembly)
        source = alternating(assembly)
        pipeline = train_pipeline(assembly.dmp, assembly.optimizer, runtime.device)
        seconds = np.empty((1 + pairs, 2, BLOCK))
        for block in seconds.reshape(-1, BLOCK):
            for place in range(BLOCK):
                begin = time.perf_counter()
                pipeline.progress(source)
                block[place] = time.perf_counter() - begin
    seconds[1::2] = seconds[1::2, ::-1]  # memory first
    block_seconds = np.median(seconds[1:, :, SKIPPED:], axis=2)  # (pairs, 2)
    ratios = block_seconds[:, 1] / block_seconds[:, 0]
    in_memory, loaded = np.median(block_seconds, axis=0).tolist()
    return {
        "config": config_file.name,
        "batch_ms": 1e3 * float(np.median(alone)),
        "step_ms_in_memory": 1e3 * in_memory,
        "step_ms_with_loader": 1e3 * loaded,
        "loader_against_step": in_memory / float(np.median(alone)),
        "step_ratio": float(np.median(ratios)),
        "step_ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
    }
