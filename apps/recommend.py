"""`flm recommend`: the best items for each user, from a trained run; users, items and clicks may be
newer than it."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from flm_apps.asked import Asked, rows_of_ids, user_rows, users_and_items
from flm_apps.trained import load_run
from numpy.typing import NDArray
from torch.distributed.elastic.multiprocessing.errors import record

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.dataset import LATER, Dataset
from flm_torchrec.data.known import POPULARITY, made_by, recent_popularity
from flm_torchrec.data.newcomers import Newcomers
from flm_torchrec.data.sampling import Sequences, histories
from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.ranking import top_items
from flm_torchrec.files import atomic_file
from flm_torchrec.grown import grown
from flm_torchrec.measure import met_where
from flm_torchrec.training.runtime import all_gather, barrier, start

_LAST = 1e-9  # of a popularity: below any difference of two


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """What may be recommended, and to whom what is popular."""

    is_candidate: NDArray[np.bool_]  # (item rows,)
    exclude_seen: bool
    is_unknown: NDArray[np.bool_]  # (user rows,)
    popular: NDArray[np.float32]  # (item rows,) scores for the unknown users


def best_items(
    assembly: Assembly,
    users: NDArray[np.int64],
    seqs: Sequences,
    choice: Choice,
    *,
    k: int,
    block: int = 256,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """users (n,) -> items (n, k) and scores (n, k), best first; -inf where fewer are left.

    Of equal scores the lower item row is first, as in evaluation. Called by all ranks with the same
    users, at least one; each scores a share.
    """
    runtime, retrieval = assembly.runtime, assembly.retrieval()
    own = runtime.share(users)
    seen = np.full(len(assembly.dataset.interactions.user), choice.exclude_seen)
    met = met_where(assembly.dataset, seen)
    is_no_candidate = ~torch.from_numpy(choice.is_candidate)
    popular = torch.from_numpy(choice.popular)
    items, scores = [], []
    for chunk in np.split(own, range(block, len(own), block)):
        score = retrieval.scores(chunk, seqs).cpu()
        is_unknown = torch.from_numpy(choice.is_unknown[chunk])
        # Among what nobody met, or equally many did, the model's choice for anybody comes first.
        popular_first = popular + _LAST * score.sigmoid()
        score = torch.where(is_unknown[:, None], popular_first, score)
        is_out = met.take(chunk).dense(score.shape[1]) | is_no_candidate
        is_out[:, 0] = True  # the unknown item
        score = score.masked_fill(is_out, -torch.inf)
        best = top_items(score, k)
        items.append(best)
        scores.append(score.gather(1, best))
    every_item = all_gather(torch.cat(items))[: len(users)]
    every_score = all_gather(torch.cat(scores))[: len(users)]
    return every_item.numpy(), every_score.numpy()


def as_table(
    dataset: Dataset,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    scores: NDArray[np.float32],
    way: NDArray[np.str_],
) -> pd.DataFrame:
    """user_id, item_id, rank (from 1), score and made_by, the users' `way` (n,); one row a
    recommendation."""
    k = items.shape[1]
    user_entity, item_entity = users_and_items(dataset)
    table = pd.DataFrame(
        {
            "user_id": np.repeat(user_entity.ids[users], k),
            "item_id": item_entity.ids[items.reshape(-1)],
            "rank": np.tile(np.arange(1, k + 1), len(users)),
            "score": scores.reshape(-1),
            "made_by": np.repeat(way.astype(object), k),
        }
    )
    return table.loc[np.isfinite(scores.reshape(-1))].reset_index(drop=True)


def write_table(table: pd.DataFrame, out: Path) -> None:
    """As parquet or CSV, by the name's ending."""
    with atomic_file(out) as file:
        if out.suffix == ".csv":
            table.to_csv(file, index=False)
        else:
            table.to_parquet(file, index=False)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="flm recommend", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder of a trained run")
    parser.add_argument(
        "--users", help="all, or a CSV file of user ids; default: the new ones, without any all"
    )
    parser.add_argument("--domain", help="whose users and items, of a run over several domains")
    parser.add_argument("--k", type=int, default=20, help="items a user")
    parser.add_argument("--out", type=Path, required=True, help="a .parquet or .csv file")
    parser.add_argument("--new-users", type=Path, help="users that the data lack, as its table")
    parser.add_argument("--new-items", type=Path, help="items that the data lack, as its table")
    parser.add_argument("--history", type=Path, help="interactions that came later, as its table")
    parser.add_argument("--candidates", help="a CSV file of item ids: only these are ranked")
    seen = parser.add_mutually_exclusive_group()
    for name, is_out in (("--exclude-seen", True), ("--include-seen", False)):
        seen.add_argument(
            name,
            dest="exclude_seen",
            action="store_const",
            const=is_out,
            help="whether what a user met is left out; default: as interactions.repeats says",
        )
    args = parser.parse_args(argv)
    if args.out.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out {args.out}: the name must end in .parquet or .csv")
    return args


def with_newcomers(assembly: Assembly, args: argparse.Namespace) -> Assembly:
    """The run with what came after it; called by all ranks."""
    newcomers = Newcomers(users=args.new_users, items=args.new_items, history=args.history)
    if newcomers == Newcomers():
        return assembly
    if newcomers.history is not None and assembly.collator.window == 0:
        raise UserError(
            f"--history {newcomers.history}: the run reads no history; allowed: without it"
        )
    larger = grown(assembly, newcomers)
    has_text = larger.dataset.items is not None and larger.dataset.items.text
    if newcomers.items and has_text and assembly.encoder is None and assembly.runtime.rank == 0:
        print(f"{newcomers.items}: its texts are not read, since the run has no views.text")
    return larger


def recommend(assembly: Assembly, args: argparse.Namespace, num_known: int) -> None:
    """Rank and write; users from row `num_known` on are new. Called by all ranks."""
    dataset, runtime = assembly.dataset, assembly.runtime
    asked = Asked.of(dataset, args.domain)
    user_entity, item_entity = users_and_items(asked.dataset)
    num_items = len(item_entity.ids)
    if not 1 <= args.k < num_items:
        raise UserError(f"--k {args.k}; allowed: 1 to {num_items - 1}, all items")
    if args.users is None and args.new_users is not None:
        users = np.arange(num_known, len(user_entity.ids))
    else:
        users = user_rows(asked.dataset, args.users or "all")
    users = asked.users[users]
    candidates = asked.items
    if args.candidates is not None:
        names = asked.dataset.schema.items
        rows = rows_of_ids(args.candidates, item_entity, names, option="--candidates", what="item")
        candidates = asked.items[rows]
    num_rows = len(users_and_items(dataset)[1].ids)
    is_candidate = np.zeros(num_rows, dtype=bool)
    is_candidate[candidates] = True
    popular = np.zeros(num_rows, dtype=np.float32)
    popular[asked.items] = recent_popularity(asked.dataset)
    seqs = histories(dataset.interactions, before_part=LATER + 1)
    way = made_by(dataset, seqs, window=assembly.collator.window)
    schema = dataset.schema.interactions
    assert schema is not None, "there are users and items"
    choice = Choice(
        is_candidate=is_candidate,
        exclude_seen=not schema.repeats if args.exclude_seen is None else args.exclude_seen,
        is_unknown=way == POPULARITY,
        popular=popular,
    )
    items, scores = best_items(assembly, users, seqs, choice, k=args.k)
    if runtime.rank == 0:
        write_table(as_table(dataset, users, items, scores, way[users]), args.out)
        tell(args.out, args.k, scores, way[users])


def tell(out: Path, k: int, scores: NDArray[np.float32], way: NDArray[np.str_]) -> None:
    """One line: for how many users, by what, and for how many of them fewer were left."""
    ways = ", ".join(f"{count:,} by {name}" for name, count in sorted(Counter(way).items()))
    short = int((~np.isfinite(scores)).any(1).sum())
    fewer = f"; {short:,} with fewer left" if short else ""
    print(f"{out}: {k} items for each of {len(way):,} users, {ways}{fewer}")


@record
@app
def main(argv: Sequence[str] | None = None) -> int:
    """Write the k best items of each user, from the latest events that are known."""
    args = arguments(argv)
    with start() as runtime:
        assembly = load_run(args.run, runtime)
        if "rank" not in assembly.model.objective.tasks:
            raise UserError(
                f"--run {args.run}: was trained without tasks.rank, so it ranks nothing; "
                "allowed: a run with it"
            )
        num_known = len(users_and_items(assembly.dataset)[0].ids)
        recommend(with_newcomers(assembly, args), args, num_known)
        barrier()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
