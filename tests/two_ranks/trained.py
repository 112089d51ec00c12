"""A run on the ranks of a job that begins as in any other world, and what its steps tell."""

from collections.abc import Callable
from pathlib import Path

from flm_torchrec.assemble import Assembly, assemble
from flm_torchrec.config import RunConfig
from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.trainable import StepOutput
from flm_torchrec.training import checkpoint
from flm_torchrec.training.loop import train
from flm_torchrec.training.pipeline import train_pipeline
from flm_torchrec.training.runtime import Runtime


def assembled(runtime: Runtime, run: RunConfig, folder: Path) -> Assembly:
    """All worlds begin with the weights that the first left in the folder."""
    assembly = assemble(run, runtime)
    path = checkpoint.latest(folder)
    if path is None:
        checkpoint.save(folder, 0, assembly.dmp, assembly.optimizer, keep=1, meta={})
    else:
        checkpoint.load(path, assembly.dmp, assembly.optimizer)
    assembly.refresh_text(keep=False)
    return assembly


def outputs_of(
    assembly: Assembly, change: Callable[[FLMBatch], FLMBatch] = lambda batch: batch
) -> list[StepOutput]:
    """Of this rank, step by step, on its batches as `change` makes them."""
    steps = assembly.config.train.steps
    pipeline = train_pipeline(assembly.dmp, assembly.optimizer, assembly.runtime.device)
    outputs: list[StepOutput] = []
    train(
        pipeline,
        (change(assembly.collator.step(assembly.sampler, step)) for step in range(steps)),
        start=0,
        steps=steps,
        on_step=lambda _, output: outputs.append(output),
        seed=0,
    )
    pipeline.detach()
    return outputs


def losses_of(
    assembly: Assembly, change: Callable[[FLMBatch], FLMBatch] = lambda batch: batch
) -> list[list[float]]:
    """This rank's losses, step by step."""
    return [output.losses.tolist() for output in outputs_of(assembly, change)]
