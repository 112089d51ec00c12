"""The vectors of texts that aren't trained: computed once, kept on disk under a content hash."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from flm_torchrec.data.text import Texts, TokenTable
from flm_torchrec.files import atomic_file
from flm_torchrec.views.text import TextView

# Of `TextView.encode`: raise it when the same encoder and text give other vectors.
VERSION = "mean pooling 1"


def content_hash(encoder: nn.Module, table: TokenTable, num_rows: int) -> str:
    """Of how vectors are made, the encoder and the tokens of the first `num_rows` texts: another
    of these is another file."""
    digest = hashlib.blake2b(VERSION.encode(), digest_size=16)
    config = getattr(encoder, "config", None)
    if config is not None:
        settings = {k: v for k, v in config.to_dict().items() if k != "_name_or_path"}
        digest.update(repr(sorted(settings.items())).encode())
    for name, weight in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    digest.update(table.tokens[:num_rows].tobytes())
    digest.update(table.length[:num_rows].tobytes())
    return digest.hexdigest()


def text_vectors(
    view: TextView,
    texts: Texts,
    *,
    folder: Path | None,
    rank: int,
    world_size: int,
    gather: Callable[[Tensor], Tensor],
    batch_size: int = 64,
) -> Tensor:
    """(names, items, H) float32, 0 where there is no text; every rank encodes a share.

    With a `folder`, vectors come from its `text-<hash>.npy` where that is there, else they are
    written to it. Must be called on all ranks.
    """
    table, num_rows = texts.table, texts.num_names * texts.num_items  # those of a corpus follow
    shape = texts.num_names, texts.num_items, view.hidden
    file = folder and folder / f"text-{content_hash(view.encoder, table, num_rows)}.npy"
    # The file counts only if every rank sees it: all must take the same branch.
    seen = torch.tensor([float(file is not None and file.exists())])
    if file is not None and bool(gather(seen).min() > 0):
        return torch.from_numpy(np.load(file)).view(shape)
    rows = np.flatnonzero(table.length[:num_rows] > 0)
    rows = rows[np.argsort(table.length[rows], kind="stable")]  # alike lengths, little padding
    share = -(-len(rows) // world_size)
    own = np.resize(rows, share * world_size)[rank::world_size]
    vectors = _encode(view, table, own, batch_size, show=rank == 0)
    result = torch.zeros(num_rows, view.hidden)
    if len(rows):
        every_row = gather(torch.from_numpy(own))
        result[every_row] = gather(vectors)
    if file is not None and rank == 0:
        with atomic_file(file) as temporary:
            np.save(temporary, result.numpy())
    return result.view(shape)


def _encode(
    view: TextView, table: TokenTable, rows: np.ndarray, batch_size: int, *, show: bool
) -> Tensor:
    device = view.token_embedding().device
    was_training = view.training
    view.eval()
    parts = [torch.zeros(0, view.hidden)]
    # Into a file each update is a line of its own.
    seconds_between = 0.1 if sys.stderr.isatty() else 5.0
    bar = tqdm(total=len(rows), desc="encode texts", disable=not show, mininterval=seconds_between)
    with torch.no_grad(), bar:
        for start in range(0, len(rows), batch_size):
            chunk = rows[start : start + batch_size]
            tokens, attention = (torch.from_numpy(a).to(device) for a in table.take(chunk))
            parts.append(view.encode(tokens, attention).cpu())
            bar.update(len(chunk))
    view.train(was_training)
    return torch.cat(parts)
