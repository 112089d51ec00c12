"""The vectors of texts that aren't trained: computed once, kept on disk under a content hash."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from flm_torchrec.data.text import Texts, TokenTable
from flm_torchrec.files import atomic_file
from flm_torchrec.views.layers_below import StatesBelow, below, can_be_cut, layers_of
from flm_torchrec.views.text import TextView

# Of `TextView.encode`: raise it when the same encoder and text give other vectors.
VERSION = "mean pooling 1"
MOST_BELOW = 2 << 30  # bytes of states that are kept in memory


def content_hash(
    encoder: nn.Module,
    table: TokenTable,
    num_rows: int,
    *,
    below: int = 0,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Of how vectors are made, the encoder and the tokens of the first `num_rows` texts: another
    of these is another file. With `below` of the encoder without its last so many layers."""
    how = [VERSION, *([str(below)] if below else [])]
    how += [str(dtype)] if dtype != torch.float32 else []
    digest = hashlib.blake2b(", ".join(how).encode(), digest_size=16)
    path, layers = layers_of(encoder)
    above = tuple(f"{path}.{place}." for place in range(len(layers) - below, len(layers)))
    config = getattr(encoder, "config", None)
    if config is not None:
        settings = {k: v for k, v in config.to_dict().items() if k != "_name_or_path"}
        digest.update(repr(sorted(settings.items())).encode())
    for name, weight in encoder.state_dict().items():
        if name.startswith(above):
            continue
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
    known: bool = False,
) -> Tensor:
    """(names, items, H) float32, 0 where there is no text; every rank encodes a share. `known`
    texts are those that the view may have the states below of.

    With a `folder`, vectors come from its `text-<hash>.npy` where that is there, else they are
    written to it. Must be called on all ranks.
    """
    table, num_rows = texts.table, texts.num_names * texts.num_items  # those of a corpus follow
    shape = texts.num_names, texts.num_items, view.hidden
    hashed = content_hash(view.encoder, table, num_rows, dtype=view.dtype)
    file = folder and folder / f"text-{hashed}.npy"
    if (kept := _kept(file, gather)) is not None:
        return kept.view(shape)
    rows = _by_length(table, num_rows)
    own = _share(rows, rank, world_size)
    vectors = _encode(view, table, own, batch_size, show=rank == 0, known=known)
    result = torch.zeros(num_rows, view.hidden)
    if len(rows):
        every_row = gather(torch.from_numpy(own))
        result[every_row] = gather(vectors)
    _keep(file, result, rank)
    return result.view(shape)


def states_below(
    view: TextView,
    texts: Texts,
    *,
    last: int,
    folder: Path | None,
    rank: int,
    world_size: int,
    gather: Callable[[Tensor], Tensor],
    batch_size: int = 64,
) -> StatesBelow | None:
    """What goes into the first of the `last` layers, of all texts of items; every rank runs a
    share of them through the layers below.

    None where they would take more than MOST_BELOW bytes, or the encoder can't be cut there. With
    a `folder` they come from its `below-<hash>.npy` where that is there, else they are written to
    it. Must be called on all ranks.
    """
    table, num_rows = texts.table, texts.num_names * texts.num_items
    length = table.length[:num_rows]
    rows = _by_length(table, num_rows)
    if len(rows) == 0 or 4 * view.hidden * int(length.sum()) > MOST_BELOW:
        return None
    device = view.token_embedding().device
    few = tuple(torch.from_numpy(a).to(device) for a in table.take(rows[:2]))
    start = np.append(0, np.cumsum(length))
    with _evaluating(view):
        if not can_be_cut(view.encoder, *few, last=last):
            return None
    hashed = content_hash(view.encoder, table, num_rows, below=last, dtype=view.dtype)
    file = folder and folder / f"below-{hashed}.npy"
    if (states := _kept(file, gather)) is None:
        own = _share(rows, rank, world_size)
        with _evaluating(view), view.in_its_precision(device):
            parts = [
                below(view.encoder, tokens, attention, last=last)[attention.bool()].float().cpu()
                for _, tokens, attention in _blocks(table, own, batch_size, device)
            ]
        flat = torch.cat(parts)
        place = np.repeat(start[own], length[own]) + _counted(length[own])
        # Ranks have about as many tokens each: what one lacks is filled with its first.
        most = int(gather(torch.tensor([len(flat)])).max())
        fill = np.resize(np.arange(len(flat)), most)
        states = torch.zeros(int(start[-1]), view.hidden)
        states[gather(torch.from_numpy(place[fill]))] = gather(flat[fill])
        _keep(file, states, rank)
    return StatesBelow(
        last=last,
        states=states.to(device),
        start=torch.from_numpy(start).to(device),
        num_items=texts.num_items,
    )


def _kept(file: Path | None, gather: Callable[[Tensor], Tensor]) -> Tensor | None:
    """What a file holds, if every rank sees it: all must take the same branch."""
    seen = torch.tensor([float(file is not None and file.exists())])
    if file is None or not bool(gather(seen).min() > 0):
        return None
    return torch.from_numpy(np.load(file))


def _keep(file: Path | None, values: Tensor, rank: int) -> None:
    if file is not None and rank == 0:
        with atomic_file(file) as temporary:
            np.save(temporary, values.numpy())


def _share(rows: NDArray[np.int64], rank: int, world_size: int) -> NDArray[np.int64]:
    """This rank's part, as long as every other's; the first rows fill up."""
    return np.resize(rows, -(-len(rows) // world_size) * world_size)[rank::world_size]


def _blocks(
    table: TokenTable, rows: NDArray[np.int64], size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows (k,), their tokens and attention (k, S), so many rows at a time."""
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        tokens, attention = (torch.from_numpy(array).to(device) for array in table.take(chunk))
        yield torch.from_numpy(chunk).to(device), tokens, attention


def _counted(length: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 to length - 1 of each, one after another."""
    return np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)


@contextmanager
def _evaluating(view: TextView) -> Iterator[None]:
    """Without gradients and dropout; the view's mode is as before then."""
    was_training = view.training
    view.eval()
    with torch.no_grad():
        yield
    view.train(was_training)


def _by_length(table: TokenTable, num_rows: int) -> NDArray[np.int64]:
    """Those with a text: alike lengths side by side, so that little is padded."""
    rows = np.flatnonzero(table.length[:num_rows] > 0)
    return rows[np.argsort(table.length[rows], kind="stable")]


def _encode(
    view: TextView,
    table: TokenTable,
    rows: NDArray[np.int64],
    batch_size: int,
    *,
    show: bool,
    known: bool,
) -> Tensor:
    device = view.token_embedding().device
    parts = [torch.zeros(0, view.hidden)]
    # Into a file each update is a line of its own.
    seconds_between = 0.1 if sys.stderr.isatty() else 5.0
    bar = tqdm(total=len(rows), desc="encode texts", disable=not show, mininterval=seconds_between)
    with _evaluating(view), bar:
        for row, tokens, attention in _blocks(table, rows, batch_size, device):
            parts.append(view.encode(tokens, attention, row if known else None).cpu())
            bar.update(len(row))
    return torch.cat(parts)
