"""TorchX components: a job of this package on any scheduler TorchX knows.

Example:
    torchx run -s local_cwd flm.pretrain --config pretrain.yaml -j 1x2 train.steps=1000
    torchx run --dryrun -s slurm flm.finetune --run runs/mine -j 2x8 --gpu 8
    torchrun --nproc_per_node 2 -m -- flm_apps.train --config pretrain.yaml --run runs/mine
"""

from typing import Dict, List, Optional

import torchx
from torchx import specs

from flm_torchrec import torchx_job
from flm_torchrec.torchx_job import ComponentError


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
        max_retries: how often a failed job is started again; it then resumes
        image: container image or folder, for schedulers that use one
        mounts: mounts of the container, type=bind,src=/host,dst=/job
    """
    args = [
        "--config",
        config,
        "--run",
        run,
        *torchx_job.resume_option(resume, max_retries),
        *torchx_job.checked(overrides),
    ]
    return torchx_job.job(
        name, "flm_apps.train", args, j, cpu, gpu, memMB, env, max_retries, image, mounts
    )


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
        max_retries: how often a failed job is started again; it then resumes
        image: container image or folder, for schedulers that use one
        mounts: mounts of the container, type=bind,src=/host,dst=/job
    """
    args = [
        "--config",
        config,
        "--run",
        run,
        *torchx_job.resume_option(resume, max_retries),
        *torchx_job.checked(overrides),
    ]
    return torchx_job.job(
        name, "flm_apps.train", args, j, cpu, gpu, memMB, env, max_retries, image, mounts
    )


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
    return torchx_job.job(name, module, args, j, cpu, gpu, memMB, env, max_retries, image, mounts)


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
    return torchx_job.job(name, module, args, j, cpu, gpu, memMB, env, max_retries, image, mounts)


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
    return torchx_job.job(
        name, "flm_apps.embed", args, j, cpu, gpu, memMB, env, max_retries, image, mounts
    )


def bench_sharding(
    *arguments: str,
    preset: str = "",
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
    """Time a training step of tables under sharding types, kernels, dtypes and pipelines.

    Args:
        arguments: the benchmark's own, after -- (flm bench-sharding --help tells them)
        preset: the tables, such as criteo-small or dlrm-v2; or others by the arguments
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
    arguments = ("--preset", preset, *arguments) if preset else arguments
    return torchx_job.job(
        name, module, arguments, j, cpu, gpu, memMB, env, max_retries, image, mounts
    )
