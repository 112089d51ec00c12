"""The job of a component: torchrun on every machine, whatever the scheduler."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from torchx import specs
from torchx.specs import macros
from torchx.specs.finder import ComponentValidationException

from flm_torchrec.errors import UserError

_PORT = 29500  # TorchX's own default; open between the machines of a job


class ComponentError(UserError, ComponentValidationException):
    """A user's mistake that `torchx run` prints as one message instead of a traceback."""


def checked(overrides: Sequence[str]) -> Sequence[str]:
    """The overrides; ComponentError where one is none."""
    for override in overrides:
        if override.startswith("-"):
            raise ComponentError(
                f"{override!r} stands after the first key=value and would not be read: "
                "options come first, overrides last"
            )
        if not re.match(r"[\w.-]+=", override):
            raise ComponentError(f"override {override!r}: allowed is key=value, as train.steps=9")
    return overrides


def resume_option(resume: str, max_retries: int) -> Sequence[str]:
    """--resume where it is asked for, or the scheduler starts a failed job again."""
    # A string, since TorchX takes any word for False where it expects a bool.
    if resume.lower() not in ("true", "false"):
        raise ComponentError(f"--resume {resume!r}: allowed are true and false")
    return ["--resume"] if resume.lower() == "true" or max_retries else []


def job(
    name: str,
    module: str,
    args: Sequence[str],
    j: str,
    cpu: int,
    gpu: int,
    memory_mb: int,
    env: dict[str, str] | None,
    max_retries: int,
    image: str,
    mounts: list[str] | None,
) -> specs.AppDef:
    """The one recipe: `torchrun -m module args` on every machine, found through rank 0's."""
    if not (found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", j)):
        raise ComponentError(f"-j {j!r}: allowed is NODESxPROCESSES, both at least 1, such as 1x2")
    nodes, processes = int(found[1]), int(found[2])
    # Port 0 is a free port; it is enough where one agent starts all processes. `$$` is a `$` that
    # TorchX leaves to the shell: schedulers that don't set the variable for rank 0 run on it.
    rendezvous = f"$${{{macros.rank0_env}:=localhost}}:{_PORT}" if nodes > 1 else "localhost:0"
    # Agents that share a store would meet restarted ranks at the addresses of those before them.
    restarts = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if nodes > 1 and max_retries else {}
    # The environment that submits is the one that runs, activated or not; where it does not exist
    # (in a container), PATH decides.
    here = shlex.quote(str(Path(sys.executable).parent)).replace("$", "$$")
    # Without `--`, torchrun takes the app's --run for an ambiguous option of its own.
    command = (
        f'PATH={here}:"$$PATH" torchrun --rdzv_backend c10d --rdzv_endpoint "{rendezvous}"'
        f" --rdzv_id {macros.app_id} --nnodes {nodes} --nproc_per_node {processes}"
        f" --max_restarts {max_retries}"  # of its processes; a machine's are the scheduler's
        f" --tee 3 --role '' -m -- {module} " + shlex.join(args).replace("$", "$$")
    )
    role = specs.Role(
        name=module.rpartition(".")[2],
        image=image,
        num_replicas=nodes,
        entrypoint="bash",
        args=["-c", command],
        # A rank sets its threads itself; without a number torchrun warns that it chose one.
        env={"LOGLEVEL": "WARNING", "OMP_NUM_THREADS": "1", **restarts, **(env or {})},
        resource=specs.Resource(cpu=cpu or processes, gpu=gpu, memMB=memory_mb or 4096 * processes),
        port_map={"c10d": _PORT},
        max_retries=max_retries,
        mounts=specs.parse_mounts(mounts or []),
    )
    return specs.AppDef(name, [role])
