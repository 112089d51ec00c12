"""The factorisation of the labels, from a configuration and its data."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import tiny_logs
import tiny_model
import torch

from flm_torchrec.build import build_model
from flm_torchrec.build_cold import fill_cold_items
from flm_torchrec.build_data import build_collator
from flm_torchrec.build_factors import (
    FOLDS,
    factors_of,
    fitted,
    label_factors,
    label_tables,
)
from flm_torchrec.data.dataset import VALIDATION
from flm_torchrec.data.sampling import histories
from flm_torchrec.errors import UserError
from flm_torchrec.tasks.heads import Heads

DATASET = tiny.dataset()
LABELS = tiny_model.config(tasks={"heads": {"factors": 2}})


def test_a_fit_for_all_users_and_one_for_the_others_of_each_fold():
    table, common = fitted(DATASET, rank=2)
    assert table.shape == (1 + FOLDS, 9, 2, 1 + 3 * 3 + 3 * 3)
    assert common.shape == (1 + FOLDS, 2, 2 + 2 * 3)
    assert bool(table.isfinite().all() and common.isfinite().all())
    # Users 2 and 6 are of fold 2: what the fit without them says is not of their labels.
    labels = {name: values.copy() for name, values in DATASET.interactions.labels.items()}
    for values in labels.values():
        own = np.isin(DATASET.interactions.user, [2, 6])
        values[own] = np.where(np.isnan(values[own]), np.nan, 1.0)
    changed = replace(DATASET, interactions=replace(DATASET.interactions, labels=labels))
    again, _ = fitted(changed, rank=2)
    torch.testing.assert_close(again[1 + 2], table[1 + 2])
    assert not torch.equal(again[0], table[0])


def test_tables_are_kept_beside_the_data(tmp_path):
    config = tiny_model.config(data={"path": str(tmp_path)}, tasks={"heads": {"factors": 2}})
    (tmp_path / "prepared").mkdir()
    first = label_tables(config, DATASET)
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "prepared").iterdir()}
    assert [file.suffix for file in kept] == [".npz"]
    for once, again in zip(first, label_tables(config, DATASET), strict=True):
        torch.testing.assert_close(again, once)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "prepared").iterdir()} == kept


def test_the_heads_start_as_what_is_expected():
    model = build_model(LABELS, DATASET, None).eval()
    tiny_model.materialise(model)
    factors, heads = factors_of(model), model.objective.tasks["heads"]
    assert factors is not None
    assert isinstance(heads, Heads)
    factors.table, factors.common = fitted(DATASET, rank=2)
    collator = build_collator(LABELS, DATASET, texts=None, rank=0, world_size=1)
    rows = np.flatnonzero(DATASET.interactions.part == VALIDATION)
    batch = collator.edge_batch(rows, histories(DATASET.interactions, before_part=VALIDATION))
    with torch.no_grad():
        expected = factors(batch)
        like = heads.predict(model.flm(batch), batch)["like"]
    bias = heads.head("like").score.bias
    torch.testing.assert_close(like, (3 * expected[:, 0] + bias).sigmoid())


def test_a_cold_item_and_a_new_one_have_rows_by_their_content():
    model = build_model(LABELS, DATASET, None)
    factors = factors_of(model)
    assert factors is not None
    factors.table, factors.common = fitted(DATASET, rank=2)
    before = factors.table.clone()
    fill_cold_items(model, DATASET)  # item 8 is met in the test only
    torch.testing.assert_close(factors.table[:, :8], before[:, :8])
    assert not torch.equal(factors.table[:, 8], before[:, 8])
    assert DATASET.items is not None
    genres = DATASET.items.columns["genres"]
    bounds = [*genres.bounds, genres.bounds[-1] + 1]
    more = replace(
        DATASET.items,
        ids=np.append(DATASET.items.ids, "new"),
        numbers=np.concatenate([DATASET.items.numbers, DATASET.items.numbers[-1:]]),
        columns={
            "item_id": replace(
                DATASET.items.columns["item_id"],
                values=np.append(DATASET.items.columns["item_id"].values, 0),
            ),
            "genres": replace(genres, values=np.append(genres.values, 1), offsets=np.array(bounds)),
        },
    )
    factors.grow(1)
    fill_cold_items(model, replace(DATASET, items=more))
    # It has the genre of item 8 and no text is read: so it is as that one.
    torch.testing.assert_close(factors.table[:, 9], factors.table[:, 8])


def test_what_has_no_histories_or_no_such_labels_is_the_users_mistake():
    with pytest.raises(UserError, match=r"tasks\.heads\.factors: the data has no histories"):
        label_factors(LABELS, tiny_logs.clicks())
    kinds = {"kind": {"kind": "multiclass"}}
    dataset = tiny_logs.with_labels(DATASET, kinds, kind=1.0)
    with pytest.raises(UserError, match="no binary, ordinal or real label; allowed: 0"):
        label_factors(LABELS, dataset)
