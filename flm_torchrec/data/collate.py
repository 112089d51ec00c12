"""Windows and rows become an `FLMBatch`: numpy in, tensors out, no loop over rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.batch import Edges, FLMBatch, ItemRows, MaskedText, TextRows, UserRows
from flm_torchrec.data.dataset import Column, Dataset
from flm_torchrec.data.masking import hide_tokens
from flm_torchrec.data.negatives import AllItems, PopularItems
from flm_torchrec.data.sampling import Sequences, UserSampler, Windows
from flm_torchrec.data.text import TokenTable
from flm_torchrec.errors import UserError


def features_kjt(columns: Mapping[str, Column], rows: NDArray[np.int64]) -> KeyedJaggedTensor:
    """The features of `rows` (B,), one key a column, stride B."""
    values, lengths = [], []
    for column in columns.values():
        start = column.offsets[rows]
        length = column.offsets[rows + 1] - start
        begin = np.cumsum(length) - length
        place = np.arange(int(length.sum())) + np.repeat(start - begin, length)
        values.append(column.values[place])
        lengths.append(length)
    return KeyedJaggedTensor(
        keys=list(columns),
        values=torch.from_numpy(np.concatenate(values)),
        lengths=torch.from_numpy(np.concatenate(lengths).astype(np.int32)),
    )


def scaled_labels(dataset: Dataset) -> NDArray[np.float32]:
    """(n, F): what each interaction told, each label within [-1, 1], 0 where missing."""
    columns = []
    for name, label in dataset.interactions.labels.items():
        levels = dataset.levels.get(name, np.array([0.0, 1.0], dtype=np.float32))
        middle, half = (levels[0] + levels[-1]) / 2, max((levels[-1] - levels[0]) / 2, 1e-6)
        columns.append(np.nan_to_num((label - middle) / half).clip(-1, 1))
    if not columns:
        return np.zeros((len(dataset.interactions.user), 1), dtype=np.float32)
    return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemText:
    """The texts of the catalogue, for those that a step encodes."""

    table: TokenTable
    masked_pool: NDArray[np.int64]  # items whose text the masked language model trains on


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Events:
    """The n events of some windows, and where each stands in them."""

    windows: Windows
    window: NDArray[np.int64]  # (n,)
    step: NDArray[np.int64]  # (n,) place in its window
    event: NDArray[np.int64]  # (n,) place in the interactions
    met: NDArray[np.int64]  # (U, L) catalogue rows of the items, 0 where there is no event


class Collator:
    """Batches of windows for one rank of `world_size`.

    `text_rows` texts a rank are encoded with gradient, `masked_rows` texts a rank are masked,
    `aligned_rows` items are aligned (the same on every rank when all items are in the batch).
    """

    def __init__(
        self,
        dataset: Dataset,
        seqs: Sequences,
        *,
        window: int,
        negatives: AllItems | PopularItems,
        text: ItemText | None,
        text_rows: int = 0,
        masked_rows: int = 0,
        aligned_rows: int = 0,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.seqs = seqs
        self.window = window
        self.negatives = negatives
        self.text = text
        self.text_rows = text_rows
        self.masked_rows = masked_rows
        self.aligned_rows = aligned_rows
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.event_labels = scaled_labels(dataset)
        self.labels = list(dataset.interactions.labels)
        self.all_features: KeyedJaggedTensor | None = None

    def step(self, sampler: UserSampler, step: int) -> FLMBatch:
        """This rank's part of the training batch of `step`."""
        return self.batch(sampler(step), rng_key=(self.seed, 2, step))

    def batch(self, everyone: Windows, *, rng_key: tuple[int, ...]) -> FLMBatch:
        """This rank's equal share of the windows, with every event of theirs as an edge."""
        # What all ranks must agree on is drawn from `shared`, the rest from `own`; a key that ends
        # in 0 gives the stream of the key without it, so ranks count from 1.
        shared = np.random.default_rng(rng_key)
        own = np.random.default_rng((*rng_key, 1 + self.rank))
        events = self._events(self._own(everyone), self.seqs)
        items, history = self._items(events.met, own, shared)
        return FLMBatch(
            edges=self._edges(everyone, history, events),
            users=self._users(events, self.seqs, items.row.numpy(), history),
            items=items,
            text=self._text(items, history, own),
            masked_text=self._masked_text(shared),
        )

    def user_rows(self, windows: Windows, seqs: Sequences) -> UserRows:
        """Users whose history holds catalogue rows, for items that are all encoded already."""
        events = self._events(windows, seqs)
        return self._users(events, seqs, np.arange(len(self.dataset.items.ids)), events.met)

    def _events(self, windows: Windows, seqs: Sequences) -> Events:
        window, place = windows.positions(windows.first, windows.length)
        event = seqs.events[seqs.offsets[windows.user][window] + place]
        step = np.arange(len(window)) - (np.cumsum(windows.length) - windows.length)[window]
        met = np.zeros((len(windows.user), self.window), dtype=np.int64)
        met[window, step] = self.dataset.interactions.item[event]
        return Events(windows=windows, window=window, step=step, event=event, met=met)

    def _own(self, everyone: Windows) -> Windows:
        share = len(everyone.user) // self.world_size
        own = slice(self.rank * share, (self.rank + 1) * share)
        return Windows(
            user=everyone.user[own],
            first=everyone.first[own],
            length=everyone.length[own],
            total=everyone.total[own],
            is_reversed=everyone.is_reversed[own],
        )

    def _items(
        self, met: NDArray[np.int64], own: np.random.Generator, shared: np.random.Generator
    ) -> tuple[ItemRows, NDArray[np.int64]]:
        """met (U, L) catalogue rows -> the batch's items, and met as rows of them."""
        everything = isinstance(self.negatives, AllItems)
        drawn, log_q = self.negatives.draw(own)
        if everything:
            rows, history = drawn, met
        else:
            distinct = np.unique(np.append(met, 0))
            rows = np.zeros(1 + met.size + len(drawn), dtype=np.int64)
            rows[: len(distinct)] = distinct
            rows[-len(drawn) :] = drawn
            history = np.searchsorted(distinct, met)
        _, index, inverse = np.unique(rows, return_index=True, return_inverse=True)
        first = index[inverse]
        if everything and self.all_features is None:
            self.all_features = features_kjt(self.dataset.items.columns, rows)
        features = self.all_features or features_kjt(self.dataset.items.columns, rows)
        may_align = (rows > 0) & (first == np.arange(len(rows)))
        if self.text is not None:
            may_align &= self.text.table.length[rows] > 0
        candidates = np.flatnonzero(may_align)
        generator = shared if everything else own
        aligned = generator.choice(
            candidates, size=min(self.aligned_rows, len(candidates)), replace=False
        )
        items = ItemRows(
            row=torch.from_numpy(rows),
            features=features,
            first=torch.from_numpy(first),
            log_q=torch.from_numpy(log_q),
            aligned=torch.from_numpy(aligned),
        )
        return items, history

    def _users(
        self,
        events: Events,
        seqs: Sequences,
        rows: NDArray[np.int64],
        history: NDArray[np.int64],
    ) -> UserRows:
        """rows (M,) catalogue rows of the batch's items, history (U, L) rows of those."""
        windows = events.windows
        labels = np.zeros((*history.shape, self.event_labels.shape[1]), dtype=np.float32)
        labels[events.window, events.step] = self.event_labels[events.event]
        before, place = windows.positions(np.zeros_like(windows.first), windows.first)
        known = self.dataset.interactions.item[
            seqs.events[seqs.offsets[windows.user][before] + place]
        ]
        distinct, index = np.unique(rows, return_index=True)
        spot = np.searchsorted(distinct, known).clip(max=len(distinct) - 1)
        in_batch = distinct[spot] == known
        return UserRows(
            row=torch.from_numpy(windows.user),
            features=features_kjt(self.dataset.users.columns, windows.user),
            history=torch.from_numpy(history),
            num_events=torch.from_numpy(windows.length),
            event_labels=torch.from_numpy(labels),
            known_user=torch.from_numpy(before[in_batch]),
            known_item=torch.from_numpy(index[spot[in_batch]]),
        )

    def _edges(self, everyone: Windows, history: NDArray[np.int64], events: Events) -> Edges:
        num_users, length = history.shape
        at = events.window, events.step
        weight = np.zeros((num_users, length), dtype=np.float32)
        weight[at] = self.world_size / max(1, int(everyone.length.sum()))
        labels = np.zeros((num_users, length, len(self.labels)), dtype=np.float32)
        label_weight = np.zeros_like(labels)
        every_event = self._events(everyone, self.seqs).event
        for t, name in enumerate(self.labels):
            column = self.dataset.interactions.labels[name]
            is_there = np.isfinite(column[events.event])
            count = np.isfinite(column[every_event]).sum()
            labels[(*at, t)] = np.where(is_there, column[events.event], 0.0)
            label_weight[(*at, t)] = is_there * (self.world_size / max(1, count))
        users, steps = np.divmod(np.arange(num_users * length), length)
        return Edges(
            user=torch.from_numpy(users),
            step=torch.from_numpy(steps),
            item=torch.from_numpy(history.reshape(-1)),
            weight=torch.from_numpy(weight.reshape(-1)),
            labels=torch.from_numpy(labels.reshape(len(users), len(self.labels))),
            label_weight=torch.from_numpy(label_weight.reshape(len(users), len(self.labels))),
        )

    def _text(
        self, items: ItemRows, history: NDArray[np.int64], rng: np.random.Generator
    ) -> TextRows:
        """K texts of items that the windows meet, filled up from the rest of the batch."""
        if self.text is None or self.text_rows == 0:
            none = torch.zeros(0, 1, dtype=torch.int64)
            return TextRows(item=none[:, 0], tokens=none, attention=none)
        rows, first = items.row.numpy(), items.first.numpy()
        has_text = self.text.table.length[rows] > 0
        wanted = np.flatnonzero(has_text & (first == np.arange(len(rows))))
        is_met = np.isin(wanted, history)
        # A key below 1 for what is met, above for the rest: the K smallest are a random draw.
        order = np.argsort(rng.random(len(wanted)) + ~is_met)
        item = wanted[order[: self.text_rows]]
        if len(item) < self.text_rows:
            raise UserError(
                f"views.text.rows: {self.text_rows} texts a rank, but a step of it holds only "
                f"{len(item)} items with text; allowed: fewer rows, more users or negatives"
            )
        tokens, attention = self.text.table.take(rows[item])
        return TextRows(
            item=torch.from_numpy(item),
            tokens=torch.from_numpy(tokens),
            attention=torch.from_numpy(attention),
        )

    def _masked_text(self, rng: np.random.Generator) -> MaskedText:
        if self.text is None or self.masked_rows == 0:
            none = torch.zeros(0, 1, dtype=torch.int64)
            return MaskedText(tokens=none, attention=none, target=none)
        table = self.text.table
        rows = rng.choice(self.text.masked_pool, size=self.masked_rows * self.world_size)
        return masked_batch(table, rows, rng, own=slice(self.rank, None, self.world_size))


def masked_batch(
    table: TokenTable, rows: NDArray[np.int64], rng: np.random.Generator, *, own: slice
) -> MaskedText:
    """The texts of `rows` with tokens hidden; of the draw for all of them, those in `own`."""
    tokens, attention = table.take(rows)
    hidden, target = hide_tokens(
        tokens,
        table.is_word[rows, : tokens.shape[1]],
        mask_token=table.mask_token,
        vocabulary=table.vocabulary,
        rng=rng,
    )
    return MaskedText(
        tokens=torch.from_numpy(hidden[own]),
        attention=torch.from_numpy(attention[own]),
        target=torch.from_numpy(target[own]),
    )
