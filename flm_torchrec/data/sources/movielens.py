"""MovieLens-100K as a canonical data folder, from the PyPI wheel that holds it."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa

from flm_torchrec.data.compute import pc
from flm_torchrec.data.reading.location import cache_folder
from flm_torchrec.data.schema import (
    EntitySchema,
    Feature,
    InteractionSchema,
    ItemSchema,
    Reviews,
    Schema,
)
from flm_torchrec.data.sources.folder import check_is_new, new_folder, rating_labels
from flm_torchrec.data.sources.plots import add_plots
from flm_torchrec.data.sources.recbole import read_atomic
from flm_torchrec.errors import UserError

WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_FOLDER_IN_WHEEL = "recbole/dataset_example/ml-100k"
_KINDS = ("user", "item", "inter")
USERS = {
    "age": Feature(kind="numeric", buckets=8),
    "gender": Feature(kind="categorical"),
    "occupation": Feature(kind="categorical"),
}


def movielens_schema(
    *, users: dict[str, Feature], multi: tuple[str, ...] = ("genres",), has_plots: bool = False
) -> Schema:
    """The schema of any MovieLens: its users' features, its items' columns of several values."""
    text: dict[str, str | Reviews] = {"title": "{title} ({year}). {genres}"}
    if has_plots:
        text["plot"] = "{plot}"
    return Schema(
        users=EntitySchema(id="user_id", features=users),
        items=ItemSchema(
            id="item_id",
            features={
                "year": Feature(kind="numeric", buckets=10),
                **{name: Feature(kind="multi", separator="|") for name in multi},
            },
            text=text,
        ),
        interactions=InteractionSchema(
            user="user_id",
            item="item_id",
            time="timestamp",
            labels=rating_labels(),
            repeats=False,
        ),
    )


SCHEMA = movielens_schema(users=USERS)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download() -> Path:
    """The wheel in the cache, downloaded by pip if it isn't there whole."""
    wheel = cache_folder() / WHEEL
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


def _unpack(wheel: Path, folder: Path) -> None:
    found = _sha256(wheel)
    if found != WHEEL_SHA256:
        raise UserError(f"{wheel}: sha256 is {found}, but {WHEEL} has {WHEEL_SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        for kind in _KINDS:
            content = archive.read(f"{_FOLDER_IN_WHEEL}/ml-100k.{kind}")
            (folder / f"ml-100k.{kind}").write_bytes(content)


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


def convert_100k(source: Path, out: Path, *, plots: Path | None = None) -> dict[str, int]:
    """Write the data folder `out` from ml-100k.user, .item and .inter; -> rows of each table."""
    whole, text = pa.int64(), pa.string()
    needed = {
        "user": {"user_id": whole, "age": whole}
        | dict.fromkeys(("gender", "occupation", "zip_code"), text),
        "item": {"item_id": whole} | dict.fromkeys(("movie_title", "release_year", "class"), text),
        "inter": {"user_id": whole, "item_id": whole, "rating": pa.float64(), "timestamp": whole},
    }
    with new_folder(out) as folder:
        tables = {
            kind: pa.concat_tables(
                rows.select(list(columns))
                for rows in read_atomic(source / f"ml-100k.{kind}", columns)
            )
            for kind, columns in needed.items()
        }
        items = _items(tables["item"])
        folder.add("users", tables["user"])
        folder.add("items", items if plots is None else add_plots(items, plots, by_id=False))
        folder.add("interactions", tables["inter"])
        folder.write_schema(movielens_schema(users=USERS, has_plots=plots is not None))
    return folder.num_rows


def fetch_movielens_100k(
    out: Path | str, source: Path | str | None = None, plots: Path | None = None
) -> None:
    """Write the canonical folder `out`; `source` is the wheel or a folder of its three files."""
    out = Path(out)
    check_is_new(out)  # before anything is downloaded
    source = _download() if source is None else Path(source)
    if not source.exists():
        raise UserError(f"{source}: there is no such file or folder")
    if source.is_dir():
        convert_100k(source, out, plots=plots)
        return
    with tempfile.TemporaryDirectory() as unpacked:
        _unpack(source, Path(unpacked))
        convert_100k(Path(unpacked), out, plots=plots)
