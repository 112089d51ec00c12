"""TorchX components: what they start, on which scheduler, and what they refuse."""

import re
import shlex

import pytest
from torchx.runner import get_runner
from torchx.specs import AppDef
from torchx.specs.builders import materialize_appdef
from torchx.specs.finder import get_components

from flm_torchrec import components
from flm_torchrec.torchx_job import ComponentError

OURS = ("pretrain", "finetune", "evaluate", "recommend", "embed", "bench_sharding")


def component(name: str, *args: str) -> AppDef:
    return materialize_appdef(getattr(components, name), list(args))


def command(app: AppDef) -> list[str]:
    return shlex.split(app.roles[0].args[1])


def after_module(words: list[str]) -> list[str]:
    assert words[words.index("-m") + 1] == "--"
    return words[words.index("-m") + 2 :]


def test_torchx_lists_our_components_and_still_its_own():
    names = set(get_components())
    assert {f"flm.{name}" for name in OURS} == {name for name in names if name.startswith("flm.")}
    assert {"dist.ddp", "dist.spmd", "utils.echo", "utils.sh"} <= names


@pytest.mark.parametrize("name", OURS)
def test_every_argument_is_documented(name):
    function = getattr(components, name)
    documented = re.findall(r"^        (\w+): ", function.__doc__, re.MULTILINE)
    parameters = [parameter for parameter in function.__annotations__ if parameter != "return"]
    assert sorted(documented) == sorted(parameters)


def test_pretrain_starts_the_training_app_under_torchrun():
    app = component("pretrain", "-j", "1x3", "--config", "my.yaml", "--run", "a b", "x.y=1", "z=$q")
    words = command(app)
    assert after_module(words) == [
        "flm_apps.train", "--config", "my.yaml", "--run", "a b", "x.y=1", "z=$$q",
    ]  # fmt: skip
    assert words[words.index("--nproc_per_node") + 1] == "3"


@pytest.mark.parametrize(
    ("name", "args", "started"),
    [
        ("finetune", [], "flm_apps.train --config finetune.yaml --run runs/finetune"),
        ("evaluate", ["--run", "r"], "flm_apps.evaluate --run r --part test"),
        (
            "recommend",
            ["--run", "r", "--out", "o.csv", "--k", "5"],
            "flm_apps.recommend --run r --k 5 --out o.csv",
        ),
        (
            "recommend",
            ["--run", "r", "--out", "o.csv", "--users", "u.csv", "--", "--new-items", "i.csv"],
            "flm_apps.recommend --run r --users u.csv --k 20 --out o.csv --new-items i.csv",
        ),
        ("embed", ["--run", "r", "--out", "o"], "flm_apps.embed --run r --out o"),
        ("bench_sharding", ["--", "--x", "1"], "flm_benchmarks.sharding.run --x 1"),
        (
            "bench_sharding",
            ["--preset", "equal", "--", "--x", "1"],
            "flm_benchmarks.sharding.run --preset equal --x 1",
        ),
    ],
)
def test_components_start_their_module(name, args, started):
    assert " ".join(after_module(command(component(name, *args)))) == started


def test_one_machine_meets_on_a_free_port_and_several_at_rank_0():
    assert "localhost:0" in command(component("pretrain", "-j", "1x2"))
    app = component("pretrain", "-j", "3x2")
    assert "$${${rank0_env}:=localhost}:29500" in command(app)
    assert app.roles[0].num_replicas == 3


def test_environment_resources_and_retries_reach_the_role():
    args = ["--cpu", "8", "--gpu", "2", "--memMB", "999", "--env", "A=1,B=2", "--max_retries", "3"]
    role = component("pretrain", *args).roles[0]
    assert (role.resource.cpu, role.resource.gpu, role.resource.memMB) == (8, 2, 999)
    assert role.env["A"] == "1"
    assert role.env["B"] == "2"
    assert role.max_retries == 3


def test_the_processes_of_a_job_are_restarted_as_often_as_it_may_be_retried():
    words = command(component("pretrain", "--max_retries", "2"))
    assert words[words.index("--max_restarts") + 1] == "2"
    several = component("pretrain", "-j", "2x1", "--max_retries", "1").roles[0]
    assert several.env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"


def test_a_job_that_may_be_retried_resumes():
    assert "--resume" in command(component("pretrain", "--max_retries", "1"))
    assert "--resume" in command(component("pretrain", "--resume", "True"))
    assert "--resume" not in command(component("pretrain"))


@pytest.mark.parametrize("j", ["2", "0x2", "1x0", "1x2x3", "x", "1x-1", "1:2x4"])
def test_a_malformed_j_is_refused(j):
    with pytest.raises(ComponentError, match="allowed is NODESxPROCESSES"):
        component("pretrain", f"-j={j}")


def test_an_option_after_an_override_is_refused_instead_of_swallowed():
    with pytest.raises(ComponentError, match="'--config' stands after the first key=value"):
        component("pretrain", "train.steps=1", "--config", "x.yaml")


def test_an_override_that_is_not_key_value_is_refused():
    with pytest.raises(ComponentError, match=r"override 'train\.steps': allowed is key=value"):
        component("pretrain", "train.steps")


def test_an_unknown_part_is_refused():
    with pytest.raises(ComponentError, match="--part 'train': allowed are validation and test"):
        component("evaluate", "--run", "r", "--part", "train")


def test_dryrun_for_slurm_prints_a_job(tmp_path):
    args = ["--run", "runs/x", "-j", "2x4", "--gpu", "4", "--max_retries", "2", "train.steps=7"]
    with get_runner() as runner:
        script = str(runner.dryrun_component("flm.pretrain", args, "slurm"))
    jobs = re.findall(r"^#SBATCH (--job-name.*)$", script, re.MULTILINE)
    assert len(jobs) == 2
    assert all("--gpus-per-task=4" in job and "--cpus-per-task=4" in job for job in jobs)
    assert "export TORCHX_MAX_RETRIES=2" in script
    commands = shlex.split(script[script.index("srun ") :], comments=False)
    words = shlex.split(commands[commands.index("-c") + 1])
    assert words[1] == "torchrun"
    assert words[words.index("--rdzv_endpoint") + 1].endswith(":=localhost}:29500")
    assert words[words.index("--nnodes") + 1] == "2"
    assert after_module(words) == [
        "flm_apps.train", "--config", "pretrain.yaml", "--run", "runs/x", "--resume",
        "train.steps=7",
    ]  # fmt: skip
