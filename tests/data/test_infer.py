import numpy as np
import pandas as pd
import pytest

from flm_torchrec.data.checking.infer import infer, propose
from flm_torchrec.data.schema import Feature, Reviews, Schema
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import load_yaml

WORDS = ["amber", "bison", "cedar", "dune", "ember", "frost", "grove", "haze", "inlet", "jade"]


def write(folder, **tables):
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    return folder


def texts(rng, rows, words):
    return [" ".join(rng.choice(WORDS, words)) for _ in range(rows)]


def ratings(rng, rows=300, users=20, items=40):
    pairs = rng.permutation(users * items)[:rows]
    return {
        "userId": pairs // items + 1,
        "movieId": pairs % items + 1,
        "rating": rng.integers(1, 6, rows),
        "timestamp": 880_000_000 + rng.permutation(rows),
    }


def movies(rng, items=40):
    genres = ["Drama", "Comedy", "Action|Drama", "Comedy|Drama"]
    return {
        "movieId": np.arange(items) + 1,
        "title": texts(rng, items, 3),
        "year": 1960 + np.arange(items),
        "genres": rng.choice(genres, items),
        "plot": texts(rng, items, 30),
    }


def people(rng, users=20):
    return {
        "userId": np.arange(users) + 1,
        "age": rng.integers(18, 80, users),
        "job": rng.choice(["cook", "pilot"], users),
    }


def impressions(rng, groups=60, shown=5):
    rows = groups * shown
    click = np.zeros((groups, shown), int)
    click[np.arange(groups), rng.integers(0, shown, groups)] = 1
    return {
        "user_id": np.repeat(rng.integers(0, 12, groups), shown),
        "item_id": rng.integers(0, 50, rows),
        "ts": np.repeat(1_600_000_000 + 60 * np.arange(groups), shown),
        "click": click.ravel(),
        "purchase": click.ravel() * rng.integers(0, 2, rows),
        "position": np.tile(np.arange(shown), groups),
        "price": rng.uniform(1, 90, rows).round(3),
    }


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_ratings_with_catalogues_become_sequences(tmp_path, rng):
    schema = infer(write(tmp_path, users=people(rng), items=movies(rng), interactions=ratings(rng)))
    assert schema.model_dump(exclude_defaults=True) == {
        "users": {
            "id": "userId",
            "features": {"age": {"kind": "numeric", "buckets": 10}, "job": {"kind": "categorical"}},
        },
        "items": {
            "id": "movieId",
            "features": {
                "year": {"kind": "numeric", "buckets": 10},
                "genres": {"kind": "multi", "separator": "|"},
            },
            "text": {"title": "{title} ({year}). {genres}", "plot": "{plot}"},
        },
        "interactions": {
            "user": "userId",
            "item": "movieId",
            "time": "timestamp",
            "labels": {
                "like": {"kind": "binary", "value": "rating >= 4"},
                "rating": {"kind": "ordinal"},
            },
            "repeats": False,
        },
    }


def test_what_is_printed_loads_as_the_same_schema(tmp_path, rng):
    proposal = propose(write(tmp_path, items=movies(rng), interactions=ratings(rng)))
    path = tmp_path / "schema.yaml"
    path.write_text(proposal.yaml())
    assert load_yaml(path, Schema) == proposal.schema


def test_clicks_on_what_was_shown_together_become_a_log_with_logged_negatives(tmp_path, rng):
    schema = infer(write(tmp_path, interactions=impressions(rng)))
    names = schema.interactions
    assert names is not None
    assert (names.order, names.negatives) == ("by_log", "logged")
    assert names.positives == names.history == "click == 1"
    assert names.labels["purchase"].where == "click == 1"
    assert names.context["position"].kind == "categorical"
    assert names.context["price"] == Feature(kind="numeric", buckets=10)
    assert schema.users is not None
    assert schema.users.id == "user_id"


def test_a_purchase_without_a_click_has_no_condition(tmp_path, rng):
    log = impressions(rng) | {"purchase": 1 - impressions(rng)["click"]}
    names = infer(write(tmp_path, interactions=log)).interactions
    assert names is not None
    assert names.labels["purchase"].where is None


def test_clicks_that_come_one_by_one_are_a_log_with_sampled_negatives(tmp_path, rng):
    log = impressions(rng)
    log["ts"] = log["ts"] + np.arange(len(log["ts"]))
    names = infer(write(tmp_path, interactions=log)).interactions
    assert names is not None
    assert (names.order, names.negatives) == ("by_log", "sampled")


def test_a_log_without_users_and_items_is_context_only(tmp_path, rng):
    rows = 400
    log = {"label": rng.integers(0, 2, rows), "I1": rng.geometric(0.01, rows)}
    log |= {"I2": rng.exponential(size=rows), "C1": rng.choice(["68fd1e64", "05db9164"], rows)}
    log |= {"C2": [f"{value:08x}" for value in rng.integers(0, 2**32, rows)]}
    proposal = propose(write(tmp_path, interactions=log))
    schema, names = proposal.schema, proposal.schema.interactions
    assert names is not None
    assert schema.users is schema.items is None
    assert (names.order, names.history, list(names.labels)) == ("by_log", "none", ["label"])
    assert {name: feature.kind for name, feature in names.context.items()} == {
        "I1": "numeric",
        "I2": "numeric",
        "C1": "categorical",
    }
    assert any("'C2' is left out: it has 400 values in 400 rows" in n for n in proposal.notes)


def test_texts_of_interactions_become_reviews_of_the_items(tmp_path, rng):
    log = ratings(rng)
    log["summary"], log["reviewText"] = texts(rng, 300, 4), texts(rng, 300, 25)
    schema = infer(write(tmp_path, interactions=log))
    assert schema.items is not None
    assert schema.items.text == {"reviews": Reviews(interactions="{summary}. {reviewText}")}


def test_ids_join_where_their_names_say_nothing(tmp_path, rng):
    log = ratings(rng)
    log["subject"], log["thing"] = log.pop("userId") + 1000, log.pop("movieId")
    users = {"key": np.arange(20) + 1001, "age": rng.integers(18, 80, 20)}
    items = {"nr": np.arange(40) + 1, "genre": rng.choice(["a", "b"], 40)}
    schema = infer(write(tmp_path, users=users, items=items, interactions=log))
    names = schema.interactions
    assert names is not None
    assert schema.users is not None
    assert schema.items is not None
    assert (names.user, schema.users.id) == ("subject", "key")
    assert (names.item, schema.items.id) == ("thing", "nr")


def test_ids_that_a_catalogue_lacks_are_allowed_and_noted(tmp_path, rng):
    proposal = propose(write(tmp_path, items=movies(rng, items=30), interactions=ratings(rng)))
    assert proposal.schema.interactions is not None
    assert proposal.schema.interactions.unknown_ids == "unknown"
    assert any("items lacks ids of 'movieId'" in note for note in proposal.notes)


def test_a_user_that_meets_an_item_again_makes_repeats(tmp_path, rng):
    log = {name: np.append(column, column[:1]) for name, column in ratings(rng).items()}
    names = infer(write(tmp_path, interactions=log)).interactions
    assert names is not None
    assert names.repeats


def test_lists_of_parquet_are_several_values_or_a_vector(tmp_path, rng):
    items = {"item_id": np.arange(40), "image": list(rng.normal(size=(40, 8)))}
    items["tags"] = [["a", "b"][: i % 3] for i in range(40)]
    pd.DataFrame(items).to_parquet(tmp_path / "items.parquet")
    log = ratings(rng)
    log["item_id"] = log.pop("movieId") - 1
    schema = infer(write(tmp_path, interactions=log))
    assert schema.items is not None
    assert schema.items.features == {
        "image": Feature(kind="vector"),
        "tags": Feature(kind="multi"),
    }


def test_a_column_of_events_gives_a_label_for_each_but_the_most_frequent(tmp_path, rng):
    log = ratings(rng)
    del log["rating"]
    log["event"] = ["view", "view", "buy", "cart", "view", "view"] * 50
    names = infer(write(tmp_path, interactions=log)).interactions
    assert names is not None
    assert {name: label.value for name, label in names.labels.items()} == {
        "buy": "event == buy",
        "cart": "event == cart",
    }
    assert names.context == {}


def test_dates_are_times_and_a_second_time_is_left_out(tmp_path, rng):
    log = ratings(rng)
    seconds = pd.to_datetime(log.pop("timestamp"), unit="s")
    log["date"], log["created_at"] = seconds.strftime("%Y-%m-%d %H:%M:%S"), seconds.astype(str)
    proposal = propose(write(tmp_path, interactions=log))
    assert proposal.schema.interactions is not None
    assert proposal.schema.interactions.time == "date"
    assert any("'created_at' is left out: a time" in note for note in proposal.notes)


def test_milliseconds_are_noted(tmp_path, rng):
    log = ratings(rng)
    log["timestamp"] = log["timestamp"] * 1000
    notes = propose(write(tmp_path, interactions=log)).notes
    assert any("'timestamp' looks like milliseconds" in note for note in notes)


def test_columns_that_no_schema_can_name_are_left_out(tmp_path, rng):
    log = ratings(rng) | {"a.b": rng.integers(0, 3, 300)}
    notes = propose(write(tmp_path, interactions=log)).notes
    assert any("'a.b' is left out: a schema cannot name it" in note for note in notes)


def test_a_corpus_alone_is_enough(tmp_path, rng):
    folder = write(tmp_path, corpus={"title": texts(rng, 30, 3), "body": texts(rng, 30, 40)})
    assert infer(folder) == Schema(corpus="{title}. {body}")


def test_a_corpus_of_plain_text_is_its_lines(tmp_path):
    (tmp_path / "corpus.txt").write_text("One text.\nAnother text, a longer one.\n")
    assert infer(tmp_path) == Schema(corpus="{text}")


def test_a_folder_without_tables_is_an_error(tmp_path):
    with pytest.raises(UserError, match="neither interactions nor a corpus"):
        infer(tmp_path)
