"""Two domains by hand: what each keeps of its own, and what they share."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import LOG, SMALL, write_folder
from tiny_domains import movies_and_music

from flm_torchrec.data.dataset import Column, Dataset
from flm_torchrec.data.domains import joined, with_texts
from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError


def bags(column: Column) -> list[list[int]]:
    assert column.offsets is not None
    return [part.tolist() for part in np.split(column.values, column.offsets[1:-1])]


@pytest.fixture
def both(tmp_path: Path) -> Dataset:
    return movies_and_music(tmp_path)


def test_users_and_items_of_the_second_domain_follow_those_of_the_first(both: Dataset) -> None:
    assert both.users is not None
    assert both.items is not None
    assert both.domains is not None
    assert both.users.ids.tolist() == [None, "u1", "u2", "u3", "u4", "u1", "u9"]
    assert both.items.ids[6:].tolist() == ["i6", "s1", "s2", "s3", "s4"]
    assert both.domains.names == ("movies", "music")
    assert both.domains.users.tolist() == [0, 1, 1, 1, 1, 2, 2]
    assert both.domains.items.tolist() == [0, *[1] * 6, *[2] * 4]
    assert both.domains.interactions.tolist() == [1] * 9 + [2] * 5
    assert both.domains.number("music") == 2


def test_domains_that_share_no_feature_have_columns_of_their_own(both: Dataset) -> None:
    assert both.users is not None
    assert both.items is not None
    assert list(both.items.columns) == [
        *("movies_item_id", "music_song"),
        *("movies_year", "movies_genres", "music_artist"),
    ]
    # The unknown item knows nothing in any domain; items of the other domain have no value.
    genres, artist = both.items.columns["movies_genres"], both.items.columns["music_artist"]
    assert bags(genres) == [[], [1, 2], [2], [0], [], [1, 0], [2], [], [], [], []]
    assert bags(artist) == [[0], *[[]] * 6, [1], [2], [1], [0]]
    assert (genres.num_embeddings, artist.num_embeddings) == (3, 3)
    assert both.items.numbers[:, 0].tolist() == [0, -1, 1, 0, 1, 1, 1, 0, 0, 0, 0]
    assert both.items.numbers[:, 1].tolist() == [0] * 7 + [-1, 1, 0, 1]
    assert both.users.numbers[:, 0].tolist() == [0, -1, 1, 0, 1, 0, 0]


def test_texts_of_one_name_are_one_text(both: Dataset) -> None:
    assert both.items is not None
    assert list(both.items.text) == ["title", "lyrics"]
    assert both.items.text["title"][5:8] == ["Five (2020). a, d", "Six (2030). b", "One"]
    assert both.items.text["lyrics"] == [""] * 7 + ["la", "", "na na", ""]
    other = with_texts(both, 2, {"title": ["", "A", "B", "C", "D"]})
    assert other["title"][6:] == ["Six (2030). b", "A", "B", "C", "D"]
    assert other["lyrics"] == both.items.text["lyrics"]


def test_interactions_keep_their_parts_and_histories(both: Dataset) -> None:
    met = both.interactions
    assert met.user.tolist() == [1, 1, 1, 1, 2, 2, 2, 3, 3, 5, 5, 5, 5, 6]
    assert met.item[9:].tolist() == [7, 8, 9, 10, 8]
    assert met.part.tolist() == [0, 0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0]
    assert met.events.tolist() == list(range(14))
    assert met.user_offsets.tolist() == [0, 0, 4, 7, 9, 9, 13, 14]
    assert met.before.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 0, 1, 2, 3, 0]


def test_labels_of_one_name_are_one_and_missing_where_a_domain_has_none(both: Dataset) -> None:
    labels = both.interactions.labels
    assert list(labels) == ["like", "rating", "skipped"]
    assert np.isnan(labels["like"][9:]).all()
    assert np.isnan(labels["skipped"][:9]).all()
    assert labels["rating"][9:].tolist() == [5, 10, 2, 1, 3]
    assert both.levels["rating"].tolist() == [3, 4, 5, 10]


def test_without_shared_heads_each_domain_has_labels_of_its_own(tmp_path: Path) -> None:
    both = movies_and_music(tmp_path, shared_heads=False)
    assert list(both.interactions.labels) == [
        *("movies_like", "movies_rating", "music_rating", "music_skipped")
    ]
    assert both.levels["movies_rating"].tolist() == [3, 4, 5]
    assert both.levels["music_rating"].tolist() == [3, 5, 10]


def equal(one: Any, other: Any) -> bool:
    if is_dataclass(one):
        return all(equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(
            one, other, equal_nan=one.dtype != object
        )
    if isinstance(one, dict):
        return all(map(equal, one.values(), other.values())) and len(one) == len(other)
    return one == other


def test_one_domain_is_its_data_under_another_name(tmp_path: Path) -> None:
    movies = prepare(write_folder(tmp_path))
    alone = joined({"movies": movies})
    assert equal(alone.users, movies.users)
    assert equal(alone.interactions, movies.interactions)
    assert equal(alone.items, movies.items)
    assert equal(alone.levels, movies.levels)


def test_the_fingerprint_tells_names_data_and_heads_apart(tmp_path: Path) -> None:
    movies = prepare(write_folder(tmp_path))
    found = [
        joined({"a": movies, "b": movies}),
        joined({"a": movies, "c": movies}),
        joined({"a": movies}),
        joined({"a": movies, "b": movies}, shared_heads=False),
    ]
    assert len({dataset.fingerprint for dataset in found}) == 4


def test_a_log_has_the_context_of_each_domain(tmp_path: Path) -> None:
    log = prepare(write_folder(tmp_path, files=LOG))
    met = joined({"a": log, "b": log}).interactions
    num_rows = len(log.interactions.user)
    name, column = next(iter(log.interactions.context.items()))
    first, second = met.context[f"a_{name}"], met.context[f"b_{name}"]
    own = bags(first)[:num_rows]
    assert bags(first) == own + [[]] * num_rows
    assert bags(second) == [[]] * num_rows + own
    assert len(column.values) == len(first.values)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("repeats: false", "repeats: true"), "interactions.repeats is false in a and true in b"),
        (("repeats: false", "order: by_log\n  repeats: false"), "interactions.order is by_user in"),
        (
            ("items:\n", "split: random\nitems:\n"),
            "split is neither random nor item_cold in a and random in b",
        ),
        (
            ("items:\n", "split: item_cold\nitems:\n"),
            "split is neither random nor item_cold in a and item_cold in b",
        ),
    ],
)
def test_domains_that_do_not_go_together_are_told(
    change: tuple[str, str], told: str, tmp_path: Path
) -> None:
    parts = {
        "a": prepare(write_folder(tmp_path / "a")),
        "b": prepare(write_folder(tmp_path / "b", {"schema.yaml": change}, files=SMALL)),
    }
    with pytest.raises(UserError) as caught:
        joined(parts)
    assert str(caught.value).startswith(f"data.domains: {told}")
    assert str(caught.value).endswith("; allowed: the same in all domains")


def test_labels_of_one_name_and_two_kinds_are_told(tmp_path: Path) -> None:
    real = {"schema.yaml": ("rating: {kind: ordinal}", "rating: real")}
    parts = {
        "a": prepare(write_folder(tmp_path / "a")),
        "b": prepare(write_folder(tmp_path / "b", real)),
    }
    with pytest.raises(UserError) as caught:
        joined(parts)
    assert str(caught.value) == (
        "data.domains: label 'rating' is ordinal in a and real in b; allowed: one kind, or "
        "data.shared_heads: false"
    )
    assert "b_rating" in joined(parts, shared_heads=False).moments


def test_a_corpus_alone_is_no_domain(tmp_path: Path) -> None:
    words = {"corpus.csv": "text\nsome words\n", "schema.yaml": 'corpus: "{text}"\n'}
    with pytest.raises(UserError) as caught:
        joined({"a": prepare(write_folder(tmp_path, files=words))})
    assert str(caught.value) == (
        "data.domains.a: its data are a corpus alone; allowed: data with interactions"
    )
