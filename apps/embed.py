"""`flm embed`: vectors from a trained run, of items fused and view by view, and of users."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import torch
from flm_apps.trained import load_run
from numpy.typing import NDArray
from pyarrow import parquet
from torch import Tensor
from torch.distributed.elastic.multiprocessing.errors import record

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.dataset import LATER, Entity
from flm_torchrec.data.sampling import histories
from flm_torchrec.errors import UserError, app
from flm_torchrec.files import atomic_folder
from flm_torchrec.retrieval import encode_items, evaluating
from flm_torchrec.training.runtime import Runtime, all_gather, barrier, start


class VectorFiles:
    """Parquet files of ids and vectors in a folder, written block by block; without a folder
    nothing is written."""

    def __init__(self, folder: Path | None, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._writers: dict[str, parquet.ParquetWriter] = {}

    def write(self, name: str, entity: Entity, rows: NDArray[np.int64], vectors: Tensor) -> None:
        """Add rows (n,) of an entity with their vectors (n, D) to a file."""
        if self._folder is None:
            return
        flat = pa.array(vectors.float().cpu().numpy().reshape(-1))
        ids = pa.array(entity.ids[rows].tolist(), pa.array(entity.ids[1:2].tolist()).type)
        vector = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        table = pa.table({"id": ids, "vector": vector})
        if name not in self._writers:
            writer = parquet.ParquetWriter(self._folder / f"{name}.parquet", table.schema)
            self._writers[name] = self._stack.enter_context(writer)
        self._writers[name].write_table(table)


def blocks(
    entity: Entity, runtime: Runtime, size: int = 1024
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of an entity but for the unknown one: (n,) those of a block, and this rank's share of
    them, as many on every rank; gathered and cut to n the shares are the block."""
    for first in range(1, len(entity.ids), size * runtime.world_size):
        rows = np.arange(first, min(first + size * runtime.world_size, len(entity.ids)))
        yield rows, runtime.share(rows)


def write_items(assembly: Assembly, entity: Entity, files: VectorFiles) -> None:
    """items.parquet of the fused rows, and items.VIEW.parquet of the items that have the view."""
    runtime, names = assembly.runtime, assembly.model.flm.view_names
    for rows, own in blocks(entity, runtime):
        with evaluating(assembly.model):
            encoded = encode_items(assembly.model, assembly.collator, own, runtime.device)
        files.write("items", entity, rows, all_gather(encoded.row)[: len(rows)])
        views = all_gather(encoded.views.transpose(0, 1))[: len(rows)]
        present = all_gather(encoded.present.T.to(torch.uint8))[: len(rows)].bool().cpu()
        for place, name in enumerate(names):
            has = present[:, place]
            file = f"items.{quote(name, safe=' ')}"
            files.write(file, entity, rows[has.numpy()], views[:, place].cpu()[has])


def write_users(assembly: Assembly, entity: Entity, files: VectorFiles) -> None:
    """users.parquet of the states after the latest events."""
    retrieval = assembly.retrieval()
    seqs = histories(assembly.dataset.interactions, before_part=LATER + 1)
    for rows, own in blocks(entity, assembly.runtime, 256):
        states = all_gather(retrieval.users(own, seqs))
        files.write("users", entity, rows, states[: len(rows)])


@record
@app
def main(argv: Sequence[str] | None = None) -> int:
    """Write a folder of parquet files, each with the columns id and vector."""
    parser = argparse.ArgumentParser(prog="flm embed", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder of a trained run")
    parser.add_argument("--out", type=Path, required=True, help="a folder, which is not there yet")
    args = parser.parse_args(argv)
    if args.out.exists():
        raise UserError(f"--out {args.out}: is there already; allowed: a folder that is not")
    with start() as runtime:
        assembly = load_run(args.run, runtime)
        users, items = assembly.dataset.users, assembly.dataset.items
        if items is None:
            raise UserError(f"--run {args.run}: its data have no items; allowed: data with items")
        domains = assembly.dataset.domains
        if domains is not None and len(domains.names) > 1:
            raise UserError(
                f"--run {args.run}: is over the domains {', '.join(domains.names)}, whose ids may "
                "be equal; allowed: a run over one"
            )
        with ExitStack() as stack:
            folder = stack.enter_context(atomic_folder(args.out)) if runtime.rank == 0 else None
            files = VectorFiles(folder, stack)
            write_items(assembly, items, files)
            if users is not None:
                write_users(assembly, users, files)
        if runtime.rank == 0:
            print(f"{args.out}: {', '.join(sorted(path.name for path in args.out.iterdir()))}")
        barrier()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
