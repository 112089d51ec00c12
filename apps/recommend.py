"""`flm recommend`: the best items for each user, from a trained run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from flm_apps.trained import load_run
from numpy.typing import NDArray
from torch.distributed.elastic.multiprocessing.errors import record

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.dataset import TEST, Dataset, Entity
from flm_torchrec.data.sampling import Sequences, histories
from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.ranking import top_items
from flm_torchrec.files import atomic_file
from flm_torchrec.measure import met_where
from flm_torchrec.training.runtime import all_gather, barrier, start


def users_and_items(dataset: Dataset) -> tuple[Entity, Entity]:
    """Who is asked for, and what there is to recommend."""
    if dataset.users is None or dataset.items is None:
        missing = "user" if dataset.users is None else "item"
        raise UserError(
            f"--run: its data has no {missing}s to recommend with; "
            f"allowed: data with interactions.{missing}"
        )
    return dataset.users, dataset.items


def user_rows(dataset: Dataset, users: str) -> NDArray[np.int64]:
    """Rows of `all` users, or of those in the first column of a CSV file with a header."""
    entity, _ = users_and_items(dataset)
    if users == "all":
        return np.arange(1, len(entity.ids))
    if not Path(users).is_file():
        raise UserError(f"--users {users}: no such file; allowed: all, or a CSV file of user ids")
    try:
        asked = pd.read_csv(users, dtype=str, keep_default_na=False).iloc[:, 0].tolist()
    except (pd.errors.EmptyDataError, IndexError) as error:
        raise UserError(f"--users {users}: holds no column of user ids") from error
    if not asked:
        raise UserError(f"--users {users}: holds no user id below its header; allowed: one a row")
    row_of = {str(user): row for row, user in enumerate(entity.ids) if row > 0}
    for place, user in enumerate(asked, 1):
        if user not in row_of:
            raise UserError(
                f"{users}, data row {place}: user {user!r} is not in the data; "
                f"allowed: ids of its users table, such as {entity.ids[1]!r}"
            )
    return np.array([row_of[user] for user in asked], dtype=np.int64)


def best_items(
    assembly: Assembly, users: NDArray[np.int64], seqs: Sequences, *, k: int, block: int = 256
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """users (n,) -> items (n, k) and scores (n, k), best first; -inf where fewer are left.

    Of equal scores the lower item row is first, as in evaluation. Called by all ranks with the same
    users, at least one; each scores a share.
    """
    runtime, retrieval = assembly.runtime, assembly.retrieval()
    per_rank = -(-len(users) // runtime.world_size)
    padded = np.resize(users, per_rank * runtime.world_size)
    own = padded[runtime.rank * per_rank : (runtime.rank + 1) * per_rank]
    # As in evaluation: what was met is left out where nobody meets an item twice.
    schema, interactions = assembly.dataset.schema.interactions, assembly.dataset.interactions
    assert schema is not None
    met = met_where(assembly.dataset, (interactions.part <= TEST) & (not schema.repeats))
    items, scores = [], []
    for chunk in np.split(own, range(block, len(own), block)):
        score = retrieval.scores(chunk, seqs).cpu()
        is_out = met.take(chunk).dense(score.shape[1])
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
) -> pd.DataFrame:
    """user_id, item_id, rank (from 1), score; one row a recommendation."""
    k = items.shape[1]
    user_entity, item_entity = users_and_items(dataset)
    table = pd.DataFrame(
        {
            "user_id": np.repeat(user_entity.ids[users], k),
            "item_id": item_entity.ids[items.reshape(-1)],
            "rank": np.tile(np.arange(1, k + 1), len(users)),
            "score": scores.reshape(-1),
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


@record
@app
def main(argv: Sequence[str] | None = None) -> int:
    """Write the k best items of each user, from the latest events that the data holds."""
    parser = argparse.ArgumentParser(prog="flm recommend", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder of a trained run")
    parser.add_argument("--users", default="all", help="all, or a CSV file of user ids")
    parser.add_argument("--k", type=int, default=20, help="items a user")
    parser.add_argument("--out", type=Path, required=True, help="a .parquet or .csv file")
    args = parser.parse_args(argv)
    if args.out.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out {args.out}: the name must end in .parquet or .csv")
    with start() as runtime:
        assembly = load_run(args.run, runtime)
        if "rank" not in assembly.model.objective.tasks:
            raise UserError(
                f"--run {args.run}: was trained without tasks.rank, so it ranks nothing; "
                "allowed: a run with it"
            )
        dataset = assembly.dataset
        most = len(users_and_items(dataset)[1].ids) - 1
        if not 1 <= args.k <= most:
            raise UserError(f"--k {args.k}; allowed: 1 to {most}, all items")
        users = user_rows(dataset, args.users)
        seqs = histories(dataset.interactions, before_part=TEST + 1)
        items, scores = best_items(assembly, users, seqs, k=args.k)
        if runtime.rank == 0:
            write_table(as_table(dataset, users, items, scores), args.out)
            print(f"{args.out}: {args.k} items for each of {len(users)} users")
        barrier()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
