"""`flm demo`: the whole job on MovieLens-100K, each stage a command that anyone can run alone."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from flm_apps.run_folder import read_report

from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.report import write_report

FLOOR_NDCG = 0.100
MOST_SECONDS = 12 * 60
MOST_GIB = 2.5


def stages(data: Path, run: Path, ranks: int) -> dict[str, list[list[str]]]:
    """The commands of each stage, in order."""
    launch = ["torchx", "run", "-s", "local_cwd"]
    on_ranks = ["-j", f"1x{ranks}"]
    pretrained, finetuned = str(run / "pretrain"), str(run / "finetune")
    path = f"data.path={data}"
    fetch = (
        [] if data.is_dir() else [["flm", "data", "fetch", "movielens-100k", "--out", str(data)]]
    )
    out = str(run / "recommendations.parquet")
    return {
        "prepare": [*fetch, ["flm", "data", "prepare", str(data)]],
        "pretrain": [[*launch, "flm.pretrain", "--run", pretrained, *on_ranks, path]],
        "finetune": [
            [*launch, "flm.finetune", "--run", finetuned, *on_ranks, path, f"init={pretrained}"]
        ],
        "evaluate": [[*launch, "flm.evaluate", "--run", finetuned, *on_ranks]],
        "recommend": [
            [*launch, "flm.recommend", "--run", finetuned, "--k", "5", "--out", out, *on_ranks]
        ],
    }


def run_stages(commands: dict[str, list[list[str]]]) -> dict[str, float]:
    """Run every command, stopping at the first that fails; -> seconds by stage."""
    bin_folder = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    seconds: dict[str, float] = {}
    for stage, parts in commands.items():
        begin = time.perf_counter()
        for command in parts:
            print(f"\n$ {shlex.join(command)}", flush=True)
            code = subprocess.run([bin_folder / command[0], *command[1:]], env=env).returncode
            if code != 0:
                raise UserError(f"stage {stage} ended with exit code {code}; its output is above")
        seconds[stage] = time.perf_counter() - begin
    return seconds


def merged(pretrain: dict[str, Any], finetune: dict[str, Any]) -> dict[str, Any]:
    """One report of both stages: a task's first loss is that of the first stage that has it."""
    first, last = pretrain["tasks"], finetune["tasks"]
    tasks = {
        name: {
            "first": (first.get(name) or last[name])["first"],
            "last": (last.get(name) or first[name])["last"],
        }
        for name in {**first, **last}
    }
    memory = max(pretrain["peak_memory_gib"], finetune["peak_memory_gib"])
    return finetune | {"tasks": tasks, "mlm": pretrain["mlm"], "peak_memory_gib": memory}


def checks(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What must hold of the demo; `passed` by comparison of `value` with `bound`."""
    test, baselines = report["test"], report["baselines"]
    best = max(b["ndcg@10"] for b in baselines.values() if "ndcg@10" in b)
    bias, mlm = baselines["bias"], report["mlm"]
    at_least = [
        ("test ndcg@10", test["ndcg@10"], FLOOR_NDCG),
        ("test ndcg@10 above the best baseline", test["ndcg@10"], best),
        ("test auc_like against the bias baseline", test["auc_like"], bias["auc_like"]),
        ("mlm accuracy against the most frequent token", mlm["accuracy"], mlm["most_frequent"]),
    ]
    at_most = [
        ("test rmse_rating against the bias baseline", test["rmse_rating"], bias["rmse_rating"]),
        ("seconds", report["seconds"]["total"], MOST_SECONDS),
        ("peak memory of a rank, GiB", report["peak_memory_gib"], MOST_GIB),
        *((f"loss of {name} falls", t["last"], t["first"]) for name, t in report["tasks"].items()),
    ]
    return [
        {"name": name, "value": value, "bound": bound, "passed": value >= bound}
        for name, value, bound in at_least
    ] + [
        {"name": name, "value": value, "bound": bound, "passed": value <= bound}
        for name, value, bound in at_most
    ]


def show_users(dataset: Dataset, table: pd.DataFrame, *, count: int = 5, latest: int = 5) -> None:
    """Some users' latest history beside what is recommended to them, with titles."""
    titles = dataset.items.titles
    title_of = dict(zip(dataset.items.ids, titles, strict=True))
    offsets, item = dataset.interactions.user_offsets, dataset.interactions.item
    for row in np.linspace(1, len(dataset.users.ids) - 1, count).astype(int):
        user = dataset.users.ids[row]
        met = [titles[i] for i in item[offsets[row + 1] - latest : offsets[row + 1]]][::-1]
        best = [title_of[i] for i in table[table["user_id"] == user].sort_values("rank")["item_id"]]
        print(f"\nuser {user}\n  {'latest, newest first':<58}  recommended")
        for left, right in zip(met, best, strict=False):
            print(f"  {left[:58]:<58}  {right}")


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, pretrain, fine-tune, evaluate, recommend, check; 1 when a check fails."""
    parser = argparse.ArgumentParser(prog="flm demo", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--data", type=Path, default=Path("data/ml-100k"))
    parser.add_argument("--ranks", type=int, default=2)
    args = parser.parse_args(argv)
    if args.run.exists():
        raise UserError(f"--run {args.run}: exists; allowed: a folder that doesn't, or remove it")
    seconds = run_stages(stages(args.data, args.run, args.ranks))
    report = merged(read_report(args.run / "pretrain"), read_report(args.run / "finetune"))
    report["seconds"] = seconds | {"total": sum(seconds.values())}
    report["checks"] = checks(report)
    write_report(args.run, report)
    show_users(prepare(args.data), pd.read_parquet(args.run / "recommendations.parquet"))
    print(f"\n{'check':<48}{'value':>12}{'bound':>12}")
    for check in report["checks"]:
        mark = "" if check["passed"] else "  FAILED"
        print(f"{check['name']:<48}{check['value']:>12.4f}{check['bound']:>12.4f}{mark}")
    print(f"\nreport: {args.run / 'report.html'}")
    return 0 if all(check["passed"] for check in report["checks"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
