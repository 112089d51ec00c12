"""MovieLens-100K as a canonical data folder, from the PyPI wheel that holds it."""

import hashlib
import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from flm_torchrec.data.compute import pc
from flm_torchrec.data.schema import EntitySchema, Feature, InteractionSchema, Label, Schema
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_folder
from flm_torchrec.typed_yaml import dump_yaml

WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_FOLDER_IN_WHEEL = "recbole/dataset_example/ml-100k"
_KINDS = ("user", "item", "inter")

SCHEMA = Schema(
    users=EntitySchema(
        id="user_id",
        features={
            "age": Feature(kind="numeric", buckets=8),
            "gender": Feature(kind="categorical"),
            "occupation": Feature(kind="categorical"),
        },
    ),
    items=EntitySchema(
        id="item_id",
        features={
            "year": Feature(kind="numeric", buckets=10),
            "genres": Feature(kind="multi", separator="|"),
        },
        text={"title": "{title} ({year}). {genres}"},
    ),
    interactions=InteractionSchema(
        user="user_id",
        item="item_id",
        time="timestamp",
        labels={
            "like": Label(kind="binary", value="rating >= 4"),
            "rating": Label(kind="ordinal"),
        },
        repeats=False,
    ),
)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flm_torchrec"


def _download() -> Path:
    """The wheel in the cache, downloaded by pip if it isn't there whole."""
    wheel = _cache_folder() / WHEEL
    if wheel.exists() and _sha256(wheel) == WHEEL_SHA256:
        return wheel
    wheel.unlink(missing_ok=True)
    requirement = "recbole==1.2.1"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(wheel.parent), requirement]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0 or not wheel.exists():
        said = (run.stderr or run.stdout).strip().splitlines()
        raise UserError(
            f"pip cannot download {requirement}, which holds MovieLens-100K"
            f" ({said[-1] if said else f'exit code {run.returncode}'}); offline, give"
            f" --from PATH: {WHEEL}, or a folder with ml-100k.user, .item and .inter"
        )
    return wheel


def _open_wheel(wheel: Path) -> dict[str, bytes]:
    found = _sha256(wheel)
    if found != WHEEL_SHA256:
        raise UserError(f"{wheel}: sha256 is {found}, but {WHEEL} has {WHEEL_SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        return {kind: archive.read(f"{_FOLDER_IN_WHEEL}/ml-100k.{kind}") for kind in _KINDS}


def _open_folder(folder: Path) -> dict[str, bytes]:
    files = {kind: folder / f"ml-100k.{kind}" for kind in _KINDS}
    for file in files.values():
        if not file.is_file():
            raise UserError(f"{file}: there is no such file")
    return {kind: file.read_bytes() for kind, file in files.items()}


def _parse(content: bytes, name: str, columns: dict[str, pa.DataType]) -> pa.Table:
    """Read a RecBole atomic file: tab separated, a header of name:type."""
    header = content.split(b"\n", 1)[0].decode("utf-8", "replace").strip().split("\t")
    try:
        table = csv.read_csv(
            BytesIO(content),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=csv.ConvertOptions(
                column_types={
                    column: columns.get(column.split(":")[0], pa.string()) for column in header
                },
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except pa.ArrowException as error:
        raise UserError(f"{name}: not an atomic file of MovieLens-100K: {error}") from error
    table = table.rename_columns([column.split(":")[0] for column in header])
    missing = columns.keys() - set(table.column_names)
    if missing:
        raise UserError(f"{name}: no column {', '.join(sorted(missing))}; it has {header}")
    return table.select(list(columns))


def _items(table: pa.Table) -> pa.Table:
    year, genres = table["release_year"], table["class"]
    is_year = pc.match_substring_regex(year, r"^\d{4}$")
    genres = pc.if_else(pc.equal(genres, "unknown"), None, genres)
    columns = {
        "item_id": table["item_id"],
        "title": table["movie_title"],
        "year": pc.if_else(is_year, year, None).cast(pa.int64()),
        "genres": pc.replace_substring(genres, " ", "|"),
    }
    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


def fetch_movielens_100k(out: Path | str, source: Path | str | None = None) -> None:
    """Write the canonical folder `out`; `source` is the wheel or a folder of its three files."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not an empty folder; nothing was changed")
    source = _download() if source is None else Path(source)
    if not source.exists():
        raise UserError(f"{source}: there is no such file or folder")
    content = _open_folder(source) if source.is_dir() else _open_wheel(source)
    whole, text = pa.int64(), pa.string()
    users = {"user_id": whole, "age": whole, "gender": text, "occupation": text, "zip_code": text}
    items = {"item_id": whole, "movie_title": text, "release_year": text, "class": text}
    inter = {"user_id": whole, "item_id": whole, "rating": pa.float64(), "timestamp": whole}
    tables = {
        "users": _parse(content["user"], "ml-100k.user", users),
        "items": _items(_parse(content["item"], "ml-100k.item", items)),
        "interactions": _parse(content["inter"], "ml-100k.inter", inter),
    }
    with atomic_folder(out) as folder:
        for name, table in tables.items():
            parquet.write_table(table, folder / f"{name}.parquet")
        dump_yaml(SCHEMA, folder / "schema.yaml")
