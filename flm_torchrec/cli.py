"""`flm VERB ...`: starts the app behind a verb; nothing heavy is imported before the verb is known.

Example:
    flm data fetch movielens-100k --out data/ml-100k
    flm pretrain --run runs/mine train.steps=1000
    flm recommend --run runs/mine --users all --k 20 --out recs.parquet
"""

import importlib
import sys
from collections.abc import Sequence
from difflib import get_close_matches

# verb: (module of flm_apps, arguments before the user's own, one line of help)
_VERBS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "data": ("data", (), "fetch a public data set, or prepare a folder of tables"),
    "doctor": ("doctor", (), "check this machine and environment, and say what repairs them"),
    "pretrain": ("train", ("--config", "pretrain.yaml"), "stage 1, in one process"),
    "finetune": ("train", ("--config", "finetune.yaml"), "stage 2, in one process"),
    "evaluate": ("evaluate", (), "rank the catalogue for the held-out events of a run"),
    "recommend": ("recommend", (), "write the top items of users, new ones too"),
    "embed": ("embed", (), "write the vectors of items, view by view, and of users"),
    "checkpoint": ("checkpoint", (), "list, inspect, verify or reshard the checkpoints of a run"),
    "demo": ("demo", (), "the whole job on MovieLens-100K, on two ranks"),
    "plan": ("plan", (), "place tables on a cluster that need not be here, and cost a step"),
    "bench-sharding": ("bench_sharding", (), "time a training step under each sharding type"),
}

_USAGE = "\n".join(
    [
        "usage: flm VERB ...   (flm VERB --help tells a verb's own arguments)",
        "",
        *(f"  {verb:<16}{line}" for verb, (_, _, line) in _VERBS.items()),
        "",
        "On several ranks or machines: torchx run -s local_cwd flm.pretrain --help",
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code, 2 for a verb that does not exist."""
    verb, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(_USAGE)
        return 0
    if verb not in _VERBS:
        nearest = get_close_matches(verb, _VERBS, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        print(f"flm: error: no verb {verb!r}{hint}\n\n{_USAGE}", file=sys.stderr)
        return 2
    module, before, _ = _VERBS[verb]
    return importlib.import_module(f"flm_apps.{module}").main([*before, *rest])
