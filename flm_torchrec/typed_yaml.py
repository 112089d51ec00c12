"""YAML files read into strict pydantic models, every problem told by file, dotted key and value.

Example:
    config = load_yaml(Path("pretrain.yaml"), Config, ["train.steps=1000"])
    dump_yaml(config, Path("runs/first/config.yaml"))
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0)]


class Strict(BaseModel):
    """Base of what a user writes in YAML: unknown keys are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=BaseModel)


def load_yaml(path: Path | str, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Read `path` as a `model`; each override "a.b=value" replaces or adds a key before.

    Every problem is a `UserError` that names file, dotted key, value and what is allowed.
    """
    path = Path(path)
    content = _read(path)
    if content is None:
        keys = ", ".join(model.model_fields)
        raise UserError(f"{path}: is empty; these keys are allowed: {keys}")
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {_shown(content)}; a mapping of keys to values is needed")
    for override in overrides:
        _apply(override, content)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = _problems(error.errors(), model, content)
        lines = [
            f"{path}{_given_by(key, overrides)}: {f'{key}: ' if key else ''}{what}"
            for key, what in problems.items()
        ]
        raise UserError("\n".join(lines)) from None


def dump_yaml(model: BaseModel, path: Path | str) -> None:
    """Write `model` so that `load_yaml` gives an equal one."""
    with atomic_file(path) as file:
        file.write_text(
            yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )


class _Loader(yaml.SafeLoader):
    """A key that stands twice in one mapping is an error; YAML's own loader keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key.value}' stands here a second time",
                    problem_mark=key.start_mark,
                )
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


def _parse(text: str, what: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{what}: not valid YAML{place}: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{what}: not valid YAML: {error}") from None


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        return _parse(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text: {error}") from None


def _apply(override: str, content: dict[str, Any]) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise UserError(
            f"override '{override}': is not of the form key=value, as in train.steps=100"
        )
    for place, part in enumerate(parts[:-1]):
        if content.get(part) is None:
            content[part] = {}
        content = content[part]
        if not isinstance(content, dict):
            above = ".".join(parts[: place + 1])
            raise UserError(
                f"override '{override}': {above} is {_shown(content)}, which has no keys below it"
            )
    content[parts[-1]] = _parse(text, f"override '{override}'")


def _given_by(key: str, overrides: Iterable[str]) -> str:
    """The overrides that concern `key`, as part of a place: they may be what is wrong."""
    named = {override: f"{override.partition('=')[0]}." for override in overrides}
    given = [
        override
        for override, name in named.items()
        if f"{key}.".startswith(name) or name.startswith(f"{key}.")
    ]
    return f" with {' '.join(given)}" if given else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _problems(
    errors: Sequence[ErrorDetails], model: type[BaseModel], content: Any
) -> dict[str, str]:
    """Dotted key -> what is wrong there; the alternatives of a union are told together."""
    problems: dict[str, str] = {}
    for error in errors:
        key = _dotted(error, content)
        if key not in problems:
            problems[key] = _told(error, model)
        elif error["type"] != "value_error":
            problems[key] += f" or {_wanted(error)}"
        else:
            problems[key] += f"; {_told(error, model)}"
    # What is wrong inside a mapping tells more than that it isn't the union's other member.
    return {k: told for k, told in problems.items() if not _has_inner(k, problems)}


def _has_inner(key: str, keys: Iterable[str]) -> bool:
    return any(other.startswith(f"{key}.") for other in keys)


def _dotted(error: ErrorDetails, content: Any) -> str:
    """The key of an error: its location without the names of union members and tags."""
    parts: list[str] = []
    for place, part in enumerate(error["loc"], start=1):
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            if place < len(error["loc"]) or error["type"] != "missing":
                continue
        parts.append(str(part))
    return ".".join(parts)


def _told(error: ErrorDetails, model: type[BaseModel]) -> str:
    match error["type"]:
        case "missing":
            return "is missing"
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "extra_forbidden":
            allowed = _keys_beside(error["loc"], model)
            near = get_close_matches(str(error["loc"][-1]), allowed, 1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            return f"there is no such key; {hint}allowed: {', '.join(allowed)}"
    return f"{_shown(error['input'])} is not allowed; {_wanted(error, 'it should be ')}"


def _wanted(error: ErrorDetails, start: str = "") -> str:
    if error["type"] in ("model_type", "dict_type"):
        return f"{start}a mapping of keys to values"
    return error["msg"].partition(", unable to parse")[0].replace("Input should be ", start)


def _keys_beside(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The keys that are allowed in the mapping that holds the last part of `location`."""
    types: list[Any] = [model]
    for part in location[:-1]:
        inside = [inner for kind in types for inner in _inside(kind, part)]
        types = inside or [kind for kind in types if part in _tags(kind)] or types
    return list(dict.fromkeys(key for kind in types for key in _fields(kind)))


def _fields(kind: Any) -> Mapping[str, Any]:
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return kind.model_fields if is_model else {}


def _inside(kind: Any, part: int | str) -> list[Any]:
    """The types that the value of key `part` may have in a mapping or list of type `kind`."""
    if part in _fields(kind):
        return _alternatives(_fields(kind)[str(part)].annotation)
    is_container = get_origin(kind) in (dict, list, tuple, Mapping, Sequence)
    return _alternatives(get_args(kind)[-1]) if is_container else []


def _alternatives(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for member in get_args(annotation) for kind in _alternatives(member)]
    return [annotation]


def _tags(kind: Any) -> set[Any]:
    """What a location may call a member of a union of models."""
    literals = (field.annotation for field in _fields(kind).values())
    tags = {tag for kind in literals if get_origin(kind) is Literal for tag in get_args(kind)}
    return tags | {getattr(kind, "__name__", None)}
