"""YAML into strict models: every problem names file, dotted key, value and what is allowed."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from flm_torchrec.config import RunConfig
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import Strict, dump_yaml, load_yaml


class Circle(Strict):
    """A shape with a tag."""

    kind: Literal["circle"]
    radius: float


class Square(Strict):
    """Another one."""

    kind: Literal["square"]
    side: float


class Drawing(Strict):
    """A model with all that makes locations hard to read."""

    name: str
    shapes: dict[str, Annotated[Circle | Square, Field(discriminator="kind")]] = {}
    more: list[Square] = []
    plain: Circle | Square | None = None
    size: int | Literal["auto"] = "auto"
    limits: dict[str, Annotated[float, Field(gt=0)]] = {}

    @model_validator(mode="after")
    def _has_a_name(self) -> "Drawing":
        if not self.name:
            raise ValueError("the name is empty")
        return self


RUN = "data: {path: x}\ntasks: {rank: {}}\ntrain: {steps: 10}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problem(path: Path, model: type[Strict], *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_yaml(path, model, overrides)
    return str(caught.value)


def test_a_model_comes_back_as_it_was_written(tmp_path):
    shapes = {"ä": Circle(kind="circle", radius=1e-3), "b": Square(kind="square", side=2)}
    drawing = Drawing(name="yes", shapes=shapes, more=[Square(kind="square", side=1)], size=3)
    dump_yaml(drawing, tmp_path / "file.yaml")
    assert load_yaml(tmp_path / "file.yaml", Drawing) == drawing


def test_overrides_replace_and_add_keys_with_yaml_values(tmp_path):
    overrides = ["train.dense.lr=1e-3", "train.steps=20", "data.negatives=all", "init=runs/a=b"]
    config = load_yaml(write(tmp_path, RUN), RunConfig, [*overrides, "tasks.heads={hidden: 8}"])
    assert config.train.dense.lr == 1e-3
    assert config.train.steps == 20
    assert config.init == Path("runs/a=b")
    assert config.tasks.heads is not None
    assert config.tasks.heads.hidden == 8


def test_the_last_override_of_a_key_counts(tmp_path):
    config = load_yaml(write(tmp_path, RUN), RunConfig, ["train.steps=1", "train.steps=2"])
    assert config.train.steps == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; these keys are allowed: name, shapes, more, plain, size, limits"),
        ("# nothing\n", "is empty"),
        ("- a\n- b\n", "holds ['a', 'b']; a mapping of keys to values is needed"),
        ("name: [1\n", "not valid YAML in line 2, column 1: "),
        ("name: a\nname: b\n", "not valid YAML in line 2, column 1: the key 'name' stands here a"),
        ("name: 2000-13-01\n", "not valid YAML: month must be in 1..12"),
        ("naem: a\n", "naem: there is no such key; did you mean 'name'? allowed: name, shapes"),
        ("size: 1\n", "name: is missing"),
        ("name: ''\n", "the name is empty"),
        ("name: 3\n", "name: 3 is not allowed; it should be a valid string"),
        ("1: a\nname: a\n", "1: 1 is not allowed; Keys should be strings"),
        ("name: a\nsize: big\n", "size: 'big' is not allowed; it should be a valid integer or "),
        ("name: a\nlimits: {x: -1}\n", "limits.x: -1 is not allowed; it should be greater than 0"),
        ("name: a\nlimits: [1]\n", "limits: [1] is not allowed; it should be a mapping of keys"),
        ("name: a\nshapes: {s: {kind: circle}}\n", "shapes.s.radius: is missing"),
        (
            "name: a\nshapes: {s: {kind: circle, radius: 1, size: 1}}\n",
            "shapes.s.size: there is no such key; allowed: kind, radius",
        ),
        ("name: a\nshapes: {s: {kind: oval}}\n", "shapes.s: {'kind': 'oval'} is not allowed"),
        ("name: a\nmore: [{kind: square, sid: 1}]\n", "more.0.sid: there is no such key; did you"),
        ("name: a\nmore: [{kind: square, side: x}]\n", "more.0.side: 'x' is not allowed; it"),
        ("name: a\nplain: {kind: circle, radius: x}\n", "plain.radius: 'x' is not allowed; it"),
    ],
)
def test_each_problem_names_file_key_value_and_what_is_allowed(tmp_path, text, message):
    path = write(tmp_path, text)
    assert f"{path}: {message}" in problem(path, Drawing)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "override 'train.steps': is not of the form key=value"),
        ("=3", "override '=3': is not of the form key=value"),
        ("train..steps=3", "override 'train..steps=3': is not of the form key=value"),
        ("train.steps={", "override 'train.steps={': not valid YAML"),
        ("train.steps.x=3", "train.steps is 10, which has no keys below it"),
        ("train.step=3", "with train.step=3: train.step: there is no such key; did you mean 'st"),
        ("trian.steps=3", "with trian.steps=3: trian: there is no such key; did you mean 'train'"),
        ("train.steps=", "with train.steps=: train.steps: None is not allowed; it should be a"),
        ("train.steps=1.5", "train.steps: 1.5 is not allowed; it should be a valid integer"),
        ("train.sparse.optimizer=adagra", "it should be 'rowwise_adagrad', 'adagrad'"),
        ("sharding.t1=rowwise", "sharding.t1: 'rowwise' is not allowed; it should be 'auto'"),
        ("views.width=7", "with views.width=7: views: width: 7 must be a multiple of 4"),
    ],
)
def test_a_wrong_override_is_told_with_its_text(tmp_path, override, message):
    assert message in problem(write(tmp_path, RUN), RunConfig, override)


def test_all_problems_are_told_at_once_each_on_a_line(tmp_path):
    lines = problem(write(tmp_path, "data: 3\n"), RunConfig).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["data", "tasks", "train"]


def test_a_missing_file_and_one_that_is_no_text_are_told(tmp_path):
    assert "no-such.yaml: there is no such file" in problem(tmp_path / "no-such.yaml", Drawing)
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    assert f"{path}: is not UTF-8 text" in problem(path, Drawing)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("name: a\n", encoding="utf-8-sig")
    assert load_yaml(path, Drawing).name == "a"
