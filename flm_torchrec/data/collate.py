"""Windows of sequences and rows of a log become an `FLMBatch`, without a loop over rows."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.batch import Edges, FLMBatch, ItemRows, MaskedText, TextRows, UserRows
from flm_torchrec.data.cloze import AttributeCloze
from flm_torchrec.data.content import has_views, never_met
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.id_bags import IdBags
from flm_torchrec.data.kjt import ContextReader, features_kjt, user_features
from flm_torchrec.data.masking import hide_events
from flm_torchrec.data.moments import EdgeRows, MomentFinder, Moments, met_by, sessions
from flm_torchrec.data.negatives import AllItems, Negatives, NoItems
from flm_torchrec.data.sampling import (
    Histories,
    LogSampler,
    Rows,
    Sequences,
    UserSampler,
    Windows,
    some_of,
)
from flm_torchrec.data.text import Texts
from flm_torchrec.data.text_batch import masked_rows, text_rows
from flm_torchrec.data.told import always_labels, label_weights, scaled_gaps, scaled_labels


class Collator:
    """Batches for one rank of `world_size`.

    `text_rows` texts a rank are encoded with gradient, `masked_rows` texts a rank are masked,
    `aligned_rows` items and `aligned_edges` edges a rank are aligned, an attribute is hidden of the
    items of `cloze` and a `hidden_share` of each history's events. With `any_order` an edge sees
    all other events of its user, not the earlier ones alone. `id_bags` are for a low-rank linear
    path.
    """

    def __init__(
        self,
        dataset: Dataset,
        seqs: Histories,
        *,
        window: int,
        negatives: Negatives,
        text: Texts | None,
        text_rows: int = 0,
        masked_rows: int = 0,
        aligned_rows: int = 0,
        aligned_edges: int = 0,
        cloze: AttributeCloze | None = None,
        hidden_share: float = 0.0,
        any_order: bool = False,
        id_bags: IdBags | None = None,
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
        self.aligned_edges = aligned_edges
        self.cloze = cloze
        self.hidden_share = hidden_share
        self.id_bags = id_bags
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.always = always_labels(dataset)
        schema = dataset.schema.interactions
        self.finder = MomentFinder(
            dataset.interactions,
            window=window,
            knows_met=schema is not None and not schema.repeats,
            is_logged=schema is not None and schema.negatives == "logged",
            has_items=dataset.items is not None,
            any_order=any_order,
        )
        self.has_views = has_views(dataset.items, text)
        self.never_met = never_met(dataset)
        self.context = ContextReader(dataset.interactions.context)
        users = dataset.users
        self.user_numbers = np.zeros((1, 0)) if users is None else users.numbers_and_vectors()
        self.all_features: KeyedJaggedTensor | None = None

    def step(self, sampler: UserSampler | LogSampler | None, step: int) -> FLMBatch:
        """This rank's part of the training batch of `step`; without a sampler texts only."""
        drawn = np.zeros(0, dtype=np.int64) if sampler is None else sampler(step)
        seqs = sampler.seqs if isinstance(sampler, UserSampler) else self.seqs
        return self.batch(drawn, seqs, rng_key=(self.seed, 2, step))

    def batch(
        self, drawn: Windows | Rows, seqs: Sequences, *, rng_key: tuple[int, ...]
    ) -> FLMBatch:
        """This rank's equal share of windows of `seqs`, every interaction in them an edge, or of
        rows of the log."""
        # What all ranks must agree on is drawn from `shared`, the rest from `own`; a key that ends
        # in 0 gives the stream of the key without it, so ranks count from 1.
        shared = np.random.default_rng(rng_key)
        own = np.random.default_rng((*rng_key, 1 + self.rank))
        share = self.rank, self.world_size
        if isinstance(drawn, Windows):
            moments, edges = self.finder.of_windows(drawn, seqs, *share)
        else:
            moments, edges = self.finder.of_log(drawn, self.seqs, *share)
        rows, history, item, log_q = self._item_rows(moments, edges, self.negatives, own)
        holds_all = isinstance(self.negatives, AllItems)
        items = self._items(rows, log_q, shared if holds_all else own, holds_all=holds_all)
        if self.cloze is not None and items is not None:
            hidden = self.cloze.draw(shared, rank=self.rank, world_size=self.world_size)
            items = self.cloze.behind(items, hidden)
        hidden_events = hide_events(moments.num_events, self.window, self.hidden_share, own)
        return FLMBatch(
            edges=self._edges(edges, moments, item, rows, len(log_q), own),
            users=self._users(moments, rows, history, hidden_events),
            items=items,
            text=text_rows(self.text, rows, np.append(history, item), self.text_rows, own),
            masked_text=masked_rows(
                self.text, self.masked_rows, shared, rank=self.rank, world_size=self.world_size
            ),
        )

    def edge_batch(self, rows: Rows, seqs: Histories) -> FLMBatch:
        """The interactions `rows` (E,), each with the window of `seqs` behind it, to be scored:
        no negatives, no texts. Batches of equally many rows have equal shapes."""
        rng = np.random.default_rng(0)
        moments, edges = self.finder.of_rows(rows, seqs)
        item_rows, history, item, log_q = self._item_rows(moments, edges, NoItems(), rng)
        return FLMBatch(
            edges=self._edges(edges, moments, item, item_rows, 0, rng),
            users=self._users(moments, item_rows, history),
            items=self._items(item_rows, log_q, None, holds_all=False),
            text=TextRows.none(),
            masked_text=MaskedText.none(),
        )

    def user_rows(self, windows: Windows, seqs: Sequences) -> UserRows:
        """Users whose history holds catalogue rows, for items that are all encoded already."""
        assert self.dataset.items is not None, "a history needs items"
        moments = self.finder.moments(windows, seqs)
        users = self._users(moments, np.arange(len(self.dataset.items.ids)), moments.met)
        assert users is not None, "users are asked for"
        at = np.arange(len(moments.user)), moments.num_events
        return replace(users, behind=self.id_bags and self.id_bags.of_moments(moments, *at))

    def _item_rows(
        self, moments: Moments, edges: EdgeRows, negatives: Negatives, rng: np.random.Generator
    ) -> tuple[Rows, Rows, Rows, NDArray[np.float32]]:
        """-> (M,) the batch's items as catalogue rows, of which the last N are negatives; the
        histories (U, L) and the edges' items (E,) as rows of them; the negatives' log q (N,)."""
        interactions = self.dataset.interactions
        item = interactions.item[edges.row] * edges.is_real
        if self.dataset.items is None:
            return np.zeros(0, dtype=np.int64), moments.met, item, np.zeros(0, dtype=np.float32)
        is_wanted = interactions.positive[edges.row] & (item > 0)
        drawn, log_q = negatives.draw(rng, item[is_wanted])
        if isinstance(negatives, AllItems):
            return drawn, moments.met, item, log_q
        distinct = np.unique(np.concatenate([[0], moments.met.ravel(), item]))
        most = 1 + min(edges.capacity, len(self.dataset.items.ids) - 1)
        rows = np.append(np.pad(distinct, (0, most - len(distinct))), drawn)
        return rows, np.searchsorted(distinct, moments.met), np.searchsorted(distinct, item), log_q

    def _items(
        self,
        rows: Rows,
        log_q: NDArray[np.float32],
        rng: np.random.Generator | None,
        *,
        holds_all: bool,
    ) -> ItemRows | None:
        """rows (M,) of the catalogue, or all of it; without a generator none is aligned."""
        entity, domains = self.dataset.items, self.dataset.domains
        if entity is None:
            return None
        _, index, inverse = np.unique(rows, return_index=True, return_inverse=True)
        first = index[inverse]
        aligned = rows[:0]
        if rng is not None:
            candidates = np.flatnonzero((first == np.arange(len(rows))) & self.has_views[rows])
            # Where all ranks draw alike, each takes its share; row 0 fills up.
            ranks = self.world_size if holds_all else 1
            aligned = some_of(candidates, self.aligned_rows * ranks, rng, fill=0)
            aligned = aligned[self.rank % ranks :: ranks]
        return ItemRows(
            row=torch.from_numpy(rows),
            features=self._every_feature(rows) if holds_all else features_kjt(entity.columns, rows),
            numbers=torch.from_numpy(entity.numbers[rows]),
            first=torch.from_numpy(first),
            log_q=torch.from_numpy(log_q),
            aligned=torch.from_numpy(aligned),
            ids=self.id_bags and self.id_bags.of_items(rows),
            domain=None if domains is None else torch.from_numpy(domains.items[rows]),
            never_met=torch.from_numpy(self.never_met[rows[len(rows) - len(log_q) :]]),
        )

    def _every_feature(self, rows: Rows) -> KeyedJaggedTensor:
        """Those of the whole catalogue, made once."""
        if self.all_features is None:
            assert self.dataset.items is not None, "there are items"
            self.all_features = features_kjt(self.dataset.items.columns, rows)
        return self.all_features

    def _users(
        self, moments: Moments, rows: Rows, history: Rows, hidden: Rows | None = None
    ) -> UserRows | None:
        """rows (M,) catalogue rows of the batch's items, history (U, L) rows of those, hidden
        (U, H) events of those that are hidden."""
        entity = self.dataset.users
        if entity is None:
            return None
        at = np.arange(self.window) < moments.num_events[:, None]
        time = self.dataset.interactions.time[moments.event]
        told = scaled_labels(self.dataset, moments.event[at])
        labels = np.zeros((*history.shape, told.shape[1]), dtype=np.float32)
        labels[at] = told
        gap = np.zeros(history.shape, dtype=np.float32)
        gap[at] = scaled_gaps(time[at], moments.num_events)
        known_user, known_item = moments.known_user, moments.known_item
        if len(known_item):
            distinct, index = np.unique(rows, return_index=True)
            spot = np.searchsorted(distinct, known_item).clip(max=len(distinct) - 1)
            in_batch = distinct[spot] == known_item
            known_user, known_item = known_user[in_batch], index[spot[in_batch]]
        return UserRows(
            row=torch.from_numpy(moments.user),
            features=user_features(entity, moments.user, moments.is_hidden),
            numbers=torch.from_numpy(self.user_numbers[moments.user]),
            history=torch.from_numpy(history),
            num_events=torch.from_numpy(moments.num_events),
            session=torch.from_numpy(sessions(time)),
            event_labels=torch.from_numpy(labels),
            gap=torch.from_numpy(gap),
            hidden=torch.from_numpy(history[:, :0] if hidden is None else hidden),
            known_user=torch.from_numpy(known_user),
            known_item=torch.from_numpy(known_item),
        )

    def _edges(
        self,
        edges: EdgeRows,
        moments: Moments,
        item: Rows,
        item_rows: Rows,
        num_negatives: int,
        rng: np.random.Generator,
    ) -> Edges:
        """The edges; beside each, where a label always holds, one with a sampled item."""
        interactions = self.dataset.interactions
        row, user, step, impression = edges.row, edges.user, edges.step, edges.impression
        weight = edges.is_ranked * np.float32(self.world_size / max(1, edges.num_ranked))
        labels, label_weight = label_weights(
            self.dataset, row, edges.is_real, edges.everyone, self.world_size
        )
        is_negative = edges.is_real & ~interactions.positive[row]
        aligned = some_of(np.flatnonzero(edges.is_ranked), self.aligned_edges, rng, fill=-1)
        if self.always and num_negatives:
            sampled = len(item_rows) - num_negatives + rng.integers(num_negatives, size=len(item))
            met = met_by(moments, user, item_rows[sampled], len(self.has_views))
            is_ruled_out = met | self.never_met[item_rows[sampled]]
            is_other = (item_rows[sampled] != item_rows[item]) & ~is_ruled_out
            if self.dataset.domains is not None:
                of = self.dataset.domains.items[item_rows]
                is_other &= of[sampled] == of[item]
            label_weight[:, self.always] /= 2
            sampled_weight = np.zeros_like(label_weight)
            for label in self.always:
                kept = label_weight[:, label] * is_other
                share = label_weight[:, label].sum() / max(kept.sum(), np.float32(1e-12))
                sampled_weight[:, label] = kept * share
            row, user, step = np.tile(row, 2), np.tile(user, 2), np.tile(step, 2)
            item, impression = np.append(item, sampled), np.tile(impression, 2)
            weight, is_negative = (np.append(x, np.zeros_like(x)) for x in (weight, is_negative))
            labels = np.concatenate([labels, np.zeros_like(labels)])
            label_weight = np.concatenate([label_weight, sampled_weight])
        return Edges(
            user=torch.from_numpy(user),
            step=torch.from_numpy(step),
            item=torch.from_numpy(item),
            time=torch.from_numpy(interactions.time[row]),
            weight=torch.from_numpy(weight),
            is_negative=torch.from_numpy(is_negative),
            impression=torch.from_numpy(impression),
            labels=torch.from_numpy(labels),
            label_weight=torch.from_numpy(label_weight),
            context=self.context.kjt(row),
            behind=self.id_bags and self.id_bags.of_moments(moments, user, step),
            numbers=torch.from_numpy(interactions.numbers.take(row, axis=0, mode="clip")),
            aligned=torch.from_numpy(aligned),
        )
