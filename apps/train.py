"""`flm pretrain` and `flm finetune`: train a run; the stage is what its YAML says."""

import argparse
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from flm_apps.run_folder import add_to_report, config_file, setting
from flm_apps.trained import peak_memory_gib
from torch import Tensor
from torch.distributed.elastic.multiprocessing.errors import record

from flm_torchrec.assemble import Assembly, assemble
from flm_torchrec.config import RunConfig
from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.loader import load
from flm_torchrec.diagnosis import diagnosis, gradient_cosines
from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.diagnostics import Diagnostics
from flm_torchrec.evaluation.report import read_log
from flm_torchrec.measure import quality
from flm_torchrec.measure_hidden import masked_accuracy
from flm_torchrec.trainable import StepOutput
from flm_torchrec.training import checkpoint
from flm_torchrec.training.log import RunLog
from flm_torchrec.training.loop import train
from flm_torchrec.training.optimizers import scale_dense_lr, set_table_lr
from flm_torchrec.training.pipeline import paused
from flm_torchrec.training.runtime import all_gather, start
from flm_torchrec.training.sharding import describe_plan
from flm_torchrec.transfer import origin
from flm_torchrec.typed_yaml import dump_yaml, load_yaml


def lr_factor(step: int, *, steps: int, warmup: int) -> float:
    """Linear up to 1 over `warmup` steps, then a cosine down to 0 at `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def batches(assembly: Assembly, start_step: int) -> Iterator[FLMBatch]:
    """This rank's batches from `start_step` to the end of training."""
    config = assembly.config
    return load(
        lambda step: assembly.collator.step(assembly.sampler, step),
        start=start_step,
        stop=config.train.steps,
        workers=config.data.workers,
    )


def go_on(assembly: Assembly, folder: Path) -> int | None:
    """Load the newest checkpoint in a run's folder of them that is as it was written, and say so
    where it isn't the last; -> steps done, None when the folder holds none."""
    steps, is_first = assembly.config.train.steps, assembly.runtime.rank == 0
    last, damaged = checkpoint.newest_good(folder)
    if last is None:
        if not damaged:
            return None
        raise UserError(
            f"--resume: {damaged[0]}, and there is no earlier one that is as it was written; "
            "allowed: another folder, to begin anew"
        )
    assembly.check_data(last)
    done = int(checkpoint.read_meta(last)["step"])
    if done > steps:
        raise UserError(
            f"train.steps: {steps}, but {last} has done {done}; allowed: {done} or more"
        )
    checkpoint.load(last, assembly.dmp, assembly.optimizer, verified=True)
    checkpoint.set_aside(folder, after=last)
    if is_first:
        for wrong in damaged:
            print(f"warning: {wrong}; it is renamed to damaged-..., and an earlier one is taken")
        print(f"resume from {last}")
    return done


def begin(assembly: Assembly, run: Path, *, resume: bool) -> int:
    """Load what training starts from; -> steps done."""
    config, is_first = assembly.config, assembly.runtime.rank == 0
    if resume and (done := go_on(assembly, run / "checkpoints")) is not None:
        return done
    if config.init is not None:
        source = checkpoint.latest(config.init / "checkpoints")
        if source is None and not (config.init / checkpoint.MARKER).is_file():
            raise UserError(
                f"init: {config.init} holds no checkpoint; allowed: a trained run's folder, "
                "one of its checkpoints, or null to start from nothing"
            )
        source = source or config.init
        matched = assembly.start_from(source)
        if is_first:
            print(f"from {source}: {len(matched.loaded)} parameters, {len(matched.fresh)} fresh")
            for name in matched.loaded:
                print(f"  loaded {name}")
            for name in matched.fresh:
                print(f"  fresh  {name}")
    return 0


def told(assembly: Assembly, losses: Iterable[Tensor], output: StepOutput) -> dict[str, float]:
    """What a line of the log holds: the loss that is minimised and each task's own, as means over
    the last steps and all ranks, the weight the fusion gave each view and, of tasks that are
    balanced, the weight of each and the cosines of their gradients; called by all ranks."""
    mean = all_gather(torch.stack(list(losses)).mean(0)[None]).mean(0)
    names = assembly.model.objective.names
    by_task = zip(names, mean.tolist(), strict=True)
    weights = zip(assembly.model.flm.view_names, output.view_weights.tolist(), strict=True)
    found = (
        {"loss": float((output.task_weights * mean).sum())}
        | {f"loss/{name}": value for name, value in by_task}
        | {f"fusion/{name}": weight for name, weight in weights}
    )
    if assembly.config.tasks.balance != "fixed":
        counted = zip(names, output.task_weights.tolist(), strict=True)
        found |= {f"weight/{name}": weight for name, weight in counted}
    for first, row in enumerate(output.cosines.tolist()):
        for second in range(first):
            found[f"grad_cosine/{names[second]}/{names[first]}"] = row[second]
    return found


def log_diagnosis(
    log: RunLog, step: int, found: Diagnostics | None, cosines: Mapping[str, float]
) -> None:
    """Log the figures of each view and the cosines of each two tasks, and tell of collapses."""
    figures = {f"grad_cosine/{tasks}": value for tasks, value in cosines.items()}
    for view, own in ({} if found is None else found.figures).items():
        figures |= {f"view/{view}/{name}": value for name, value in own.items()}
    if figures:
        log.step(step, figures, quiet=True)
    for collapse in () if found is None else found.collapses:
        log.tell(f"warning: step {step}: {collapse}")


def look_at(
    assembly: Assembly, log: RunLog, done: int, output: StepOutput, *, validates: bool
) -> None:
    """Log how the model stands after a step; called by all ranks."""
    found = quality(assembly, part="validation") if validates else {}
    if found:
        log.step(done, {f"validation/{name}": value for name, value in found.items()})
    # A balance that takes gradients logs their cosines on the way.
    cosines = {} if len(output.cosines) else gradient_cosines(assembly, done)
    log_diagnosis(log, done, diagnosis(assembly), cosines)


def run_training(assembly: Assembly, run: Path, *, resume: bool) -> dict[str, Any]:
    """Train to the last step and leave a checkpoint; -> the report's entries of training."""
    config, optimizer = assembly.config, assembly.optimizer
    train_config, text = config.train, config.views.text
    first_step = begin(assembly, run, resume=resume)
    if assembly.runtime.rank == 0:
        dump_yaml(config, run / "config.yaml")
    assembly.keep_layers_below()
    assembly.refresh_text(keep=True)
    log = RunLog(run, assembly.runtime.rank, train_config.steps, start=first_step)
    pipeline = assembly.pipeline()
    history: deque[Tensor] = deque(maxlen=train_config.log_every)

    def is_due(done: int, every: int) -> bool:
        return every > 0 and (done % every == 0 or done == train_config.steps)

    def set_lr(done: int) -> None:
        warmup = train_config.dense.warmup
        factor = lr_factor(done, steps=train_config.steps, warmup=warmup)
        scale_dense_lr(optimizer, factor)
        if train_config.sparse.decay:
            set_table_lr(optimizer, train_config.sparse.lr * factor)

    def on_step(done: int, output: StepOutput) -> None:
        assembly.allocate_ranks(done)
        history.append(output.losses)
        if is_due(done, train_config.log_every):
            log.step(done, told(assembly, history, output))
        if text is not None and text.mode != "frozen" and done % text.refresh == 0:
            with paused(pipeline):
                assembly.refresh_text(keep=False)
        if is_due(done, train_config.checkpoint_every):
            checkpoint.save(
                run / "checkpoints",
                done,
                assembly.dmp,
                optimizer,
                keep=train_config.keep,
                meta=origin(config, assembly.dataset),
            )
        validates = is_due(done, train_config.validate_every)
        if validates or done == train_config.steps:
            with paused(pipeline):
                look_at(assembly, log, done, output, validates=validates)
        set_lr(done)

    set_lr(first_step)
    steps = batches(assembly, first_step)
    train(
        pipeline,
        steps,
        start=first_step,
        steps=train_config.steps,
        on_step=on_step,
        seed=train_config.seed,
    )
    log.close()
    plan = describe_plan(assembly.dmp)
    # Only the rank that writes the log can be sure to read all of it.
    return {"tasks": first_and_last(run), "plan": plan} if assembly.runtime.rank == 0 else {}


def sizes(dataset: Dataset) -> dict[str, int]:
    """How much there is of what the data has."""
    entities = {"users": dataset.users, "items": dataset.items}
    known = {name: len(entity.ids) - 1 for name, entity in entities.items() if entity is not None}
    found = known | {"interactions": len(dataset.interactions.user), "corpus": len(dataset.corpus)}
    return {name: count for name, count in found.items() if count}


def first_and_last(run: Path) -> dict[str, dict[str, float]]:
    """Each task's mean loss in the first and the last two lines of the run's log, which holds
    the whole run also where it was resumed."""
    series = {
        name.removeprefix("loss/"): [value for _, value in points]
        for name, points in read_log(run / "log.jsonl").items()
        if name.startswith("loss/")
    }
    return {
        name: {"first": fmean(values[:2]), "last": fmean(values[-2:])}
        for name, values in series.items()
    }


@record
@app
def main(argv: Sequence[str] | None = None) -> int:
    """Train one run and leave configuration, checkpoints, log and report in its folder."""
    parser = argparse.ArgumentParser(prog="flm pretrain", description=__doc__)
    parser.add_argument("--config", required=True, help="a YAML file or the name of a bundled one")
    parser.add_argument("--run", type=Path, required=True, help="the folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="train.steps=1000")
    args = parser.parse_intermixed_args(argv)
    config = load_yaml(config_file(args.config), RunConfig, args.overrides)
    if not args.resume and checkpoint.latest(args.run / "checkpoints") is not None:
        raise UserError(
            f"--run {args.run}: holds checkpoints of an earlier run; "
            "allowed: another folder, or --resume (with torchx: --resume true) to go on"
        )
    begin_time = time.perf_counter()
    with start(timeout=config.train.timeout) as runtime:
        assembly = assemble(config, runtime)
        entries = run_training(assembly, args.run, resume=args.resume)
        accuracy = masked_accuracy(assembly)
        peak = peak_memory_gib(runtime)
        if runtime.rank == 0:
            entries |= {
                **setting(),
                "world_size": runtime.world_size,
                "data": sizes(assembly.dataset),
                "mlm": accuracy,
                "peak_memory_gib": peak,
                "seconds": {"train": time.perf_counter() - begin_time},
            }
            add_to_report(args.run, entries)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
