"""The typed form of `schema.yaml`, and what it refuses."""

import pytest
from small_data import write_folder

from flm_torchrec.data.schema import Comparison, Feature, Schema, template_parts
from flm_torchrec.data.sources.movielens import SCHEMA
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import dump_yaml, load_yaml


def test_a_kind_alone_is_short_for_a_feature(tmp_path):
    schema = load_yaml(write_folder(tmp_path) / "schema.yaml", Schema)
    assert schema.users.features["job"] == Feature(kind="categorical")


def test_a_schema_comes_back_as_it_was_written(tmp_path):
    dump_yaml(SCHEMA, tmp_path / "schema.yaml")
    assert load_yaml(tmp_path / "schema.yaml", Schema) == SCHEMA


def test_a_label_is_a_comparison_over_one_column():
    label = SCHEMA.interactions.labels["like"]
    assert label.comparison() == Comparison(column="rating", operator=">=", number=4)
    assert SCHEMA.interactions.labels["rating"].comparison() is None


def test_a_template_is_split_into_literals_and_columns():
    assert template_parts("{title} ({year}).") == [("", "title"), (" (", "year"), (").", "")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: numeric,", "kind: numerc,", "users.features.age.kind: 'numerc' is not allowed"),
        ("job: categorical", "job: categoric", "users.features.job: 'categoric' is not allowed"),
        ("buckets: 2", "bucket: 2", "users.features.age.bucket: there is no such key; did you"),
        (", buckets: 2", "", "users.features.age: a feature of kind numeric needs 'buckets'"),
        ("buckets: 2", "buckets: 1", "users.features.age.buckets: 1 is not allowed"),
        ('multi, separator: "|"', "multi", "items.features.genres: a feature of kind multi needs"),
        ("{kind: ordinal}", '{kind: ordinal, value: "a > 1"}', "kind ordinal has no 'value'"),
        ("rating >= 4", "rating => 4", "labels.like: 'rating => 4' is not of the form COLUMN"),
        ("rating >= 4", "rating >= x", "labels.like: 'rating >= x' is not of the form COLUMN"),
        ("job: categorical", "user_id: categorical", "users: 'user_id' is the id"),
        ("{title} ({year}", "{title ({year}", "items.text: template '{title ({year}"),
        ("{title} ({year}). {genres}", "plain", "items.text: the template of 'title' names no"),
        ("{title} ({year}", "{title} ({year:4}", "a place is a column's plain name"),
        ("repeats: false", "repeat: false", "interactions.repeat: there is no such key; did you"),
        ("  time: time\n", "", "interactions.time: is missing"),
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
