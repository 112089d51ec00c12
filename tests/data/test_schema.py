"""The typed form of `schema.yaml`, and what it refuses."""

import re

import pytest
from small_data import write_folder

from flm_torchrec.data.schema import Feature, Label, Schema, Split, template_parts
from flm_torchrec.data.sources.movielens import SCHEMA
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import dump_yaml, load_yaml


def test_a_kind_alone_is_short_for_a_feature(tmp_path):
    schema = load_yaml(write_folder(tmp_path) / "schema.yaml", Schema)
    assert schema.users.features["job"] == Feature(kind="categorical")


def test_a_schema_comes_back_as_it_was_written(tmp_path):
    dump_yaml(SCHEMA, tmp_path / "schema.yaml")
    assert load_yaml(tmp_path / "schema.yaml", Schema) == SCHEMA


@pytest.mark.parametrize(
    ("short", "label"),
    [
        ("ordinal", Label(kind="ordinal")),
        ("always", Label(kind="binary", value="always")),
        ("rating >= 4", Label(kind="binary", value="rating >= 4")),
        ({"kind": "binary", "where": "click == 1"}, Label(kind="binary", where="click == 1")),
    ],
)
def test_a_label_may_be_its_kind_or_its_derivation(short, label):
    assert schema_of({"user": "u", "item": "i", "time": "t", "labels": {"x": short}}) == schema_of(
        {"user": "u", "item": "i", "time": "t", "labels": {"x": label.model_dump()}}
    )


def schema_of(interactions, **more) -> Schema:
    return Schema.model_validate({"interactions": interactions, **more})


def test_users_and_items_that_no_table_describes_are_their_ids():
    schema = schema_of({"user": "u", "item": "i", "time": "t"})
    assert schema.users.id == "u"
    assert schema.items.id == "i"
    bare = schema_of({"labels": {"click": "binary"}, "order": "by_log", "history": "none"})
    assert bare.users is None
    assert bare.items is None


def test_the_split_is_by_user_or_by_time_unless_it_is_said():
    by_user = {"user": "u", "item": "i", "time": "t"}
    assert schema_of(by_user).split_rule().kind == "leave_one_out"
    assert schema_of({**by_user, "order": "by_log"}).split_rule().kind == "time"
    assert schema_of(by_user, split="random").split_rule() == Split(kind="random")


def test_hash_is_a_number_of_rows_or_has_keys():
    features = {"a": {"kind": "categorical", "hash": 10}}
    features["b"] = {"kind": "categorical", "hash": {"rows": 10, "ways": 2}}
    context = schema_of(
        {"context": features, "order": "by_log", "history": "none"}
    ).interactions.context
    assert (context["a"].hash.rows, context["a"].hash.ways) == (10, 1)
    assert (context["b"].hash.rows, context["b"].hash.ways) == (10, 2)


BY_USER = {"user": "u", "item": "i", "time": "t"}


@pytest.mark.parametrize(
    ("interactions", "more", "message"),
    [
        ({"user": "u", "item": "i"}, {}, "order: by_user needs 'time', or say order: by_log"),
        ({"order": "by_log", "user": "u"}, {}, "a history needs 'item', or say history: none"),
        (
            {**BY_USER, "history": "none"},
            {},
            "history: none needs order: by_log",
        ),
        (
            {"order": "by_log", "user": "u", "item": "i", "time": "t", "negatives": "logged"},
            {},
            "negatives: logged needs a predicate in 'positives'",
        ),
        (
            {"user": "u", "item": "i", "time": "t", "negatives": "logged", "positives": "a == 1"},
            {},
            "negatives: logged needs order: by_log",
        ),
        (
            {"order": "by_log", "history": "none"},
            {"items": {"id": "i"}},
            "items needs 'interactions.item', the column of their ids",
        ),
        (
            {"order": "by_log", "history": "none"},
            {"split": "user_cold"},
            "split: user_cold needs 'interactions.user'",
        ),
        (
            BY_USER,
            {"split": {"kind": "time", "validation": 0.5, "test": 0.5}},
            "validation 0.5 and test 0.5 leave nothing",
        ),
        (
            {
                "user": "u",
                "item": "i",
                "time": "t",
                "context": {"a": {"kind": "vector", "hash": 3}},
            },
            {},
            "a feature of kind vector has no 'hash'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_told(interactions, more, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        schema_of(interactions, **more)


def test_a_schema_of_nothing_is_refused():
    with pytest.raises(ValueError, match="holds neither interactions nor a corpus"):
        Schema.model_validate({})
    with pytest.raises(ValueError, match="users, items and split need interactions"):
        Schema.model_validate({"corpus": "{text}", "users": {"id": "u"}})


def test_a_template_is_split_into_literals_and_columns():
    assert template_parts("{title} ({year}).") == [("", "title"), (" (", "year"), (").", "")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: numeric,", "kind: numerc,", "users.features.age.kind: 'numerc' is not allowed"),
        ("job: categorical", "job: categoric", "users.features.job: 'categoric' is not allowed"),
        ("buckets: 2", "bucket: 2", "users.features.age.bucket: there is no such key; did you"),
        ("buckets: 2", "buckets: 1", "users.features.age.buckets: 1 is not allowed"),
        (
            "kind: multi",
            "kind: vector, hash: 3",
            "genres: a feature of kind vector has no",
        ),
        ("{kind: ordinal}", '{kind: ordinal, value: "a > 1"}', "kind ordinal has no 'value'"),
        ("rating >= 4", "rating => 4", "labels.like: 'rating => 4' is not of the form COLUMN"),
        ("rating >= 4", "rating >= x", "labels.like: 'rating >= x': 'x' is not a number"),
        ("job: categorical", "user_id: categorical", "users: 'user_id' is the id"),
        ("{title} ({year}", "{title ({year}", "items.text: template '{title ({year}"),
        ("{title} ({year}). {genres}", "plain", "items.text: the template 'plain' names no"),
        ("{title} ({year}", "{title} ({year:4}", "a place is a column's plain name"),
        ("repeats: false", "repeat: false", "interactions.repeat: there is no such key; did you"),
        ("  time: time\n", "", "interactions: order: by_user needs 'time'"),
    ],
)
def test_what_a_schema_may_not_say_is_told_by_key_and_value(tmp_path, old, new, message):
    folder = write_folder(tmp_path, {"schema.yaml": (old, new)})
    with pytest.raises(UserError) as caught:
        load_yaml(folder / "schema.yaml", Schema)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{folder / 'schema.yaml'}: ")


@pytest.mark.parametrize("part", ["users", "items"])
def test_a_feature_with_a_dot_in_its_name_is_refused(part: str) -> None:
    content = {"users": {"id": "u"}, "items": {"id": "i"}} | {
        part: {"id": "x", "features": {"a.b": "categorical"}}
    }
    content["interactions"] = {"user": "u", "item": "i", "time": "t"}
    with pytest.raises(ValueError, match=r"'a\.b' holds a '\.'"):
        Schema.model_validate(content)
