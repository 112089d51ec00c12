"""Synthetic data: what was planted is in it, and told beside it."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from flm_torchrec.data.schema import Schema
from flm_torchrec.data.sources.planted import Outcome, auc, sigmoid, words, zipf
from flm_torchrec.data.sources.synthetic import KINDS, write_synthetic
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import load_yaml


def written(out, kind, interactions=20_000, seed=0, **counts):
    write_synthetic(out, kind=kind, interactions=interactions, seed=seed, **counts)
    tables = {path.stem: pd.read_parquet(path) for path in out.glob("*.parquet")}
    return tables, json.loads((out / "truth.json").read_text())


def test_auc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    score = rng.integers(0, 9, 200).astype(np.float32)  # with ties
    label = rng.random(200) < 0.3
    assert auc(score, label) == pytest.approx(roc_auc_score(label, score))
    assert np.isnan(auc(score, np.ones(200, dtype=bool)))


def test_an_outcome_has_the_rate_and_auc_that_were_asked_for():
    rng = np.random.default_rng(0)
    effects = {name: rng.standard_normal(50_000, np.float32) * 7 for name in ("a", "b")}
    outcome = Outcome({"a": 0.8, "b": 0.2}, effects, rate=0.1, best_auc=0.7)
    p = sigmoid(outcome.logits(effects))
    label = rng.random(len(p)) < p
    assert p.mean() == pytest.approx(0.1, abs=1e-3)
    assert auc(p, label) == pytest.approx(0.7, abs=0.01)
    assert np.corrcoef(effects["a"], np.log(p))[0, 1] == pytest.approx(0.8**0.5, abs=0.05)


def test_zipf_draws_the_first_values_most_and_none_outside():
    drawn = zipf(np.random.default_rng(0), 100, 50_000, 1.1)
    counts = np.bincount(drawn, minlength=100)
    assert len(counts) == 100
    assert counts.min() > 0
    assert counts[0] > 1.5 * counts[1] > counts[10] > counts[90]


def test_invented_words_differ():
    assert len(set(words(np.random.default_rng(0), 1000))) == 1000


@pytest.mark.parametrize("kind", KINDS)
def test_equal_arguments_give_equal_data_and_another_seed_other_data(tmp_path, kind):
    first, truth = written(tmp_path / "a", kind, 3000)
    again, same = written(tmp_path / "b", kind, 3000)
    other, _ = written(tmp_path / "c", kind, 3000, seed=1)
    assert truth == same
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, again[name])
        assert not table.equals(other[name])
    assert len(first["interactions"]) == 3000
    load_yaml(tmp_path / "a/schema.yaml", Schema)


def test_a_context_log_has_skewed_numbers_gaps_and_a_known_best_auc(tmp_path):
    tables, truth = written(tmp_path / "out", "context", 40_000)
    table = tables["interactions"]
    assert list(table)[:2] == ["click", "I1"]
    assert table.shape == (40_000, 40)
    assert table.click.mean() == pytest.approx(0.25, abs=0.02)
    assert truth["best_auc"]["click"] == {
        name: pytest.approx(0.8, abs=0.03) for name in ("all", "test")
    }
    assert table.I1.isna().mean() == pytest.approx(0.05, abs=0.01)
    assert table.I13.skew() > 5
    for name, values in truth["values"].items():
        assert 0 <= table[name].min() <= table[name].max() < values


def test_impressions_are_shown_ten_at_a_time_and_convert_where_they_are_clicked(tmp_path):
    tables, truth = written(tmp_path / "out", "impressions", 20_005, users=300, items=200)
    table = tables["interactions"]
    assert len(tables["users"]) == 300
    assert len(tables["items"]) == 200
    assert set(table.user_id) <= set(tables["users"].user_id)
    assert set(table.item_id) <= set(tables["items"].item_id)
    assert table.timestamp.is_monotonic_increasing
    assert table.position.iloc[:11].tolist() == [*range(1, 11), 1]
    assert (table.groupby("timestamp").user_id.nunique() == 1).all()
    assert not table.conversion[table.click == 0].any()
    assert table.click[table.position == 1].mean() > 1.5 * table.click[table.position == 10].mean()
    assert truth["best_auc"]["click"]["all"] == pytest.approx(0.78, abs=0.02)
    assert truth["best_auc"]["conversion"]["all"] == pytest.approx(0.75, abs=0.03)


def test_the_next_item_of_a_sequence_is_often_the_one_beside_the_latest(tmp_path):
    tables, truth = written(tmp_path / "out", "sequence", users=200, items=400)
    table = tables["interactions"]
    assert len(table) == 20_000
    assert table.groupby("user_id").size().min() >= 3
    same_user = table.user_id.iloc[1:].to_numpy() == table.user_id.iloc[:-1].to_numpy()
    step = np.diff(table.item_id)[same_user] % 400
    beside = (step == truth["clusters"]).mean()
    assert beside == pytest.approx(truth["next_item"]["beside"], abs=0.05)
    assert (np.diff(table.timestamp)[same_user] > 0).all()
    assert set(table.rating) == {1, 2, 3, 4, 5}
    assert truth["best_auc"]["like"]["all"] == pytest.approx(0.78, abs=0.03)


def test_titles_carry_the_category(tmp_path):
    items = written(tmp_path / "out", "sequence", 2000, items=400)[0]["items"]
    of_category = items.groupby("category").title.apply(
        lambda titles: set(" ".join(titles).split())
    )
    first, second = of_category.iloc[:2]
    assert len(first & second) < min(len(first), len(second)) / 2
    assert items.title.str.split().str.len().eq(4).all()


@pytest.mark.parametrize(
    ("kind", "counts", "message"),
    [
        ("sequence", {"users": 0}, "users: 0; allowed: 1 or more"),
        ("context", {"interactions": -1}, "interactions: -1; allowed: 1 or more"),
        ("sequence", {"seed": -1}, "seed: -1; allowed: 0 or more"),
        ("context", {"items": 5}, "items: 5; the kind 'context' has no items"),
    ],
)
def test_impossible_counts_are_refused(tmp_path, kind, counts, message):
    with pytest.raises(UserError, match=message):
        write_synthetic(tmp_path / "out", kind=kind, **{"interactions": 10, **counts})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_interaction_is_possible(tmp_path, kind):
    tables, _ = written(tmp_path / "out", kind, 1)
    assert len(tables["interactions"]) == 1
