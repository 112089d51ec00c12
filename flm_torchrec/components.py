"""TorchX components: a job of this package on any scheduler TorchX knows.

Example:
    torchx run -s local_cwd flm.pretrain --config pretrain.yaml -j 1x2 train.steps=1000
    torchx run --dryrun -s slurm flm.finetune --run runs/mine -j 2x8 --gpu 8
    torchrun --nproc_per_node 2 -m -- flm_apps.train --config pretrain.yaml --run runs/mine
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Dict, List, Optional

import torchx
from torchx import specs
from torchx.specs import macros
from torchx.specs.finder import ComponentValidationException

from flm_torchrec.errors import UserError

_PORT = 29500  # TorchX's own default; open between the machines of a job


class ComponentError(UserError, ComponentValidationException):
    """A user's mistake that `torchx run` prints as one message instead of a traceback."""


def pretrain(
    *overrides: str,
    config: str = "pretrain.yaml",
    run: str = "runs/pretrain",
    resume: str = "false",
    j: str = "1x2",
    name: str = "flm-pretrain",
    cpu: int = 0,
    gpu: int = 0,
    memMB: int = 0,
    env: Optional[Dict[str, str]] = None,
    max_retries: int = 0,
    image: str = torchx.IMAGE,
    mounts: Optional[List[str]] = None,
) -> specs.AppDef:
    """Stage 1: pretrain on text and interactions.

    Args:
        overrides: settings to replace in the config, as train.steps=1000; after all options
        config: a YAML file, or the name of a bundled one
        run: the folder that receives checkpoints, logs and the resolved config
        resume: true to go on from the last checkpoint of the run's folder, else false
        j: NODESxPROCESSES, such as 1x2; one process a GPU on GPU machines
        name: the job's name
        cpu: cores a machine; 0: one a process
        gpu: GPUs a machine
        memMB: main memory a machine, in MB; 0: 4096 a process
        env: environment variables of the job, A=1,B=2
        max_retries: how often the scheduler starts a failed job again; it then resumes
        image: container image or folder, for schedulers that use one
        mounts: mounts of the container, type=bind,src=/host,dst=/job
    """
    args = ["--config", config, "--run", run, *_resume(resume, max_retries), *_checked(overrides)]
    return _job(name, "flm_apps.train", args, j, cpu, gpu, memMB, env, max_retries, image, mounts)


def finetune(
    *overrides: str,
    config: str = "finetune.yaml",
    run: str = "runs/finetune",
    resume: str = "false",
    j: str = "1x2",
    name: str = "flm-finetune",
    cpu: int = 0,
    gpu: int = 0,
    memMB: int = 0,
    env: Optional[Dict[str, str]] = None,
    max_retries: int = 0,
    image: str = torchx.IMAGE,
    mounts: Optional[List[str]] = None,
) -> specs.AppDef:
    """Stage 2: fine-tune heads and ranking from a stage-1 checkpoint.

    Args:
        overrides: settings to replace in the config, as train.steps=1000; after all options
        config: a YAML file, or the name of a bundled one
        run: the folder that receives checkpoints, logs and the resolved config
        resume: true to go on from the last checkpoint of the run's folder, else false
        j: NODESxPROCESSES, such as 1x2; one process a GPU on GPU machines
        name: the job's name
        cpu: cores a machine; 0: one a process
        gpu: GPUs a machine
        memMB: main memory a machine, in MB; 0: 4096 a process
        env: environment variables of the job, A=1,B=2
        max_retries: how often the scheduler starts a failed job again; it then resumes
        image: container image or folder, for schedulers that use one
        mounts: mounts of the container, type=bind,src=/host,dst=/job
    """
    args = ["--config", config, "--run", run, *_resume(resume, max_retries), *_checked(overrides)]
    return _job(name, "flm_apps.train", args, j, cpu, gpu, memMB, env, max_retries, image, mounts)


def evaluate(
    run: str,
    part: str = "test",
    j: str = "1x2",
    name: str = "flm-evaluate",
    cpu: int = 0,
    gpu: int = 0,
    memMB: int = 0,
    env: Optional[Dict[str, str]] = None,
    max_retries: int = 0,
    image: str = torchx.IMAGE,
    mounts: Optional[List[str]] = None,
) -> specs.AppDef:
    """Rank the whole catalogue for the held-out events of a run.

    Args:
        run: the folder of a trained run
        part: validation or test
        j: NODESxPROCESSES, such as 1x2
        name: the job's name
        cpu: cores a machine; 0: one a process
        gpu: GPUs a machine
        memMB: main memory a machine, in MB; 0: 4096 a process
        env: environment variables of the job, A=1,B=2
        max_retries: how often the scheduler starts a failed job again
        image: container image or folder, for schedulers that use one
        mounts: mounts of the container, type=bind,src=/host,dst=/job
    """
    if part not in ("validation", "test"):
        raise ComponentError(f"--part {part!r}: allowed are validation and test")
    args = ["--run", run, "--part", part]
    module = "flm_apps.evaluate"
    return _job(name, module, args, j, cpu, gpu, memMB, env, max_retries, image, mounts)


def recommend(
    *more: str,
    run: str,
    out: str,
    users: str = "",
    k: int = 20,
    j: str = "1x2",
    name: str = "flm-recommend",
    cpu: int = 0,
    gpu: int = 0,
    memMB: int = 0,
    env: Optional[Dict[str, str]] = None,
    max_retries: int = 0,
    image: str = torchx.IMAGE,
    mounts: Optional[List[str]] = None,
) -> specs.AppDef:
    """Write the top items of users: user_id, item_id, rank, score, made_by.

    Args:
        more: the verb's other arguments, after --, as --new-users FILE (flm recommend --help)
        run: the folder of a trained run
        out: the file to write, .parquet or .csv
        users: all, or a CSV file of user ids; without it the new ones, or all
        k: items a user
        j: NODESxPROCESSES, such as 1x2
        name: the job's name
        cpu: cores a machine; 0: one a process
        gpu: GPUs a machine
        memMB: main memory a machine, in MB; 0: 4096 a process
        env: environment variables of the job, A=1,B=2
        max_retries: how often the scheduler starts a failed job again
        image: container image or folder, for schedulers that use one
        mounts: mounts of the container, type=bind,src=/host,dst=/job
    """
    of_users = ["--users", users] if users else []
    args = ["--run", run, *of_users, "--k", str(k), "--out", out, *more]
    module = "flm_apps.recommend"
    return _job(name, module, args, j, cpu, gpu, memMB, env, max_retries, image, mounts)


def embed(
    run: str,
    out: str,
    j: str = "1x2",
    name: str = "flm-embed",
    cpu: int = 0,
    gpu: int = 0,
    memMB: int = 0,
    env: Optional[Dict[str, str]] = None,
    max_retries: int = 0,
    image: str = torchx.IMAGE,
    mounts: Optional[List[str]] = None,
) -> specs.AppDef:
    """Write the vectors of items, fused and view by view, and of users.

    Args:
        run: the folder of a trained run
        out: the folder to write, which is not there yet
        j: NODESxPROCESSES, such as 1x2
        name: the job's name
        cpu: cores a machine; 0: one a process
        gpu: GPUs a machine
        memMB: main memory a machine, in MB; 0: 4096 a process
        env: environment variables of the job, A=1,B=2
        max_retries: how often the scheduler starts a failed job again
        image: container image or folder, for schedulers that use one
        mounts: mounts of the container, type=bind,src=/host,dst=/job
    """
    args = ["--run", run, "--out", out]
    return _job(name, "flm_apps.embed", args, j, cpu, gpu, memMB, env, max_retries, image, mounts)


def bench_sharding(
    *arguments: str,
    j: str = "1x2",
    name: str = "flm-bench-sharding",
    cpu: int = 0,
    gpu: int = 0,
    memMB: int = 0,
    env: Optional[Dict[str, str]] = None,
    max_retries: int = 0,
    image: str = torchx.IMAGE,
    mounts: Optional[List[str]] = None,
) -> specs.AppDef:
    """Time a training step of a few tables under each sharding type.

    Args:
        arguments: the benchmark's own, after -- (flm bench-sharding --help tells them)
        j: NODESxPROCESSES, such as 1x2
        name: the job's name
        cpu: cores a machine; 0: one a process
        gpu: GPUs a machine
        memMB: main memory a machine, in MB; 0: 4096 a process
        env: environment variables of the job, A=1,B=2
        max_retries: how often the scheduler starts a failed job again
        image: container image or folder, for schedulers that use one
        mounts: mounts of the container, type=bind,src=/host,dst=/job
    """
    module = "flm_benchmarks.sharding.run"
    return _job(name, module, arguments, j, cpu, gpu, memMB, env, max_retries, image, mounts)


def _checked(overrides: Sequence[str]) -> Sequence[str]:
    for override in overrides:
        if override.startswith("-"):
            raise ComponentError(
                f"{override!r} stands after the first key=value and would not be read: "
                "options come first, overrides last"
            )
        if not re.match(r"[\w.-]+=", override):
            raise ComponentError(f"override {override!r}: allowed is key=value, as train.steps=9")
    return overrides


def _resume(resume: str, max_retries: int) -> Sequence[str]:
    # A string, since TorchX takes any word for False where it expects a bool.
    if resume.lower() not in ("true", "false"):
        raise ComponentError(f"--resume {resume!r}: allowed are true and false")
    return ["--resume"] if resume.lower() == "true" or max_retries else []


def _job(
    name: str,
    module: str,
    args: Sequence[str],
    j: str,
    cpu: int,
    gpu: int,
    memory_mb: int,
    env: Optional[Dict[str, str]],
    max_retries: int,
    image: str,
    mounts: Optional[List[str]],
) -> specs.AppDef:
    """The one recipe: `torchrun -m module args` on every machine, found through rank 0's."""
    if not (found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", j)):
        raise ComponentError(f"-j {j!r}: allowed is NODESxPROCESSES, both at least 1, such as 1x2")
    nodes, processes = int(found[1]), int(found[2])
    # Port 0 is a free port; it is enough where one agent starts all processes. `$$` is a `$` that
    # TorchX leaves to the shell: schedulers that don't set the variable for rank 0 run on it.
    rendezvous = f"$${{{macros.rank0_env}:=localhost}}:{_PORT}" if nodes > 1 else "localhost:0"
    # The environment that submits is the one that runs, activated or not; where it does not exist
    # (in a container), PATH decides.
    here = shlex.quote(str(Path(sys.executable).parent)).replace("$", "$$")
    # Without `--`, torchrun takes the app's --run for an ambiguous option of its own.
    command = (
        f'PATH={here}:"$$PATH" torchrun --rdzv_backend c10d --rdzv_endpoint "{rendezvous}"'
        f" --rdzv_id {macros.app_id} --nnodes {nodes} --nproc_per_node {processes}"
        f" --tee 3 --role '' -m -- {module} " + shlex.join(args).replace("$", "$$")
    )
    role = specs.Role(
        name=module.rpartition(".")[2],
        image=image,
        num_replicas=nodes,
        entrypoint="bash",
        args=["-c", command],
        # A rank sets its threads itself; without a number torchrun warns that it chose one.
        env={"LOGLEVEL": "WARNING", "OMP_NUM_THREADS": "1", **(env or {})},
        resource=specs.Resource(cpu=cpu or processes, gpu=gpu, memMB=memory_mb or 4096 * processes),
        port_map={"c10d": _PORT},
        max_retries=max_retries,
        mounts=specs.parse_mounts(mounts or []),
    )
    return specs.AppDef(name, [role])
