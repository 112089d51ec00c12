"""MovieLens of any size in the layouts that it is published in."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from flm_torchrec.data.compute import pc
from flm_torchrec.data.sources.folder import new_folder
from flm_torchrec.data.sources.lines import open_bytes, read_delimited, read_header
from flm_torchrec.data.sources.movielens import USERS, convert_100k, movielens_schema
from flm_torchrec.data.sources.plots import add_plots
from flm_torchrec.data.sources.recbole import convert_atomic
from flm_torchrec.errors import UserError

_WHOLE, _TEXT = pa.int64(), pa.string()
_USERS = {"user_id": _WHOLE, "gender": _TEXT, "age": _WHOLE, "occupation": _TEXT, "zip_code": _TEXT}
_MOVIES = {"item_id": _WHOLE, "title": _TEXT, "genres": _TEXT}
_RATINGS = {"user_id": _WHOLE, "item_id": _WHOLE, "rating": pa.float64(), "timestamp": _WHOLE}
_TAGS = {"user_id": _WHOLE, "item_id": _WHOLE, "tag": _TEXT, "timestamp": _WHOLE}
_MOST_TAGS = 10  # of a film, the most frequent ones
# What a .csv calls them.
_IN_CSV = {"user_id": "userId", "item_id": "movieId"}


def _encoding(path: Path) -> str:
    """MovieLens-1M is in Latin-1, the others in UTF-8."""
    with open_bytes(path) as file:
        try:
            for line in file:
                line.decode("utf-8")
        except UnicodeDecodeError:
            return "latin-1"
    return "utf8"


def _read_dat(path: Path, columns: dict[str, pa.DataType]) -> Iterator[pa.Table]:
    return read_delimited(path, columns, delimiter="::", encoding=_encoding(path))


def _read_csv(path: Path, columns: dict[str, pa.DataType]) -> Iterator[pa.Table]:
    header = read_header(path, delimiter=",")
    wanted = [_IN_CSV.get(column, column) for column in columns]
    if header != wanted:
        raise UserError(f"{path}: the header is {','.join(header)}, not {','.join(wanted)}")
    return read_delimited(path, columns, delimiter=",", has_header=True, has_quotes=True)


def _movies(rows: pa.Table) -> pa.Table:
    """Take "Toy Story (1995)" apart."""
    parts = pc.extract_regex(rows["title"], r"^(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*$")
    title = pc.coalesce(pc.struct_field(parts, "title"), rows["title"])
    genres = pc.if_else(pc.equal(rows["genres"], "(no genres listed)"), None, rows["genres"])
    year = pc.struct_field(parts, "year").cast(pa.int64())
    columns = {"item_id": rows["item_id"], "title": title, "year": year, "genres": genres}
    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


def _add_tags(items: pa.Table, tags: Iterator[pa.Table]) -> pa.Table:
    counts: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for rows in tags:
        cleaned = pc.utf8_lower(pc.replace_substring(rows["tag"], "|", "/"))
        for item, tag in zip(rows["item_id"].to_pylist(), cleaned.to_pylist(), strict=True):
            if tag is not None:
                counts[item][tag] += 1
    most = [counts[item].most_common(_MOST_TAGS) for item in items["item_id"].to_pylist()]
    joined = ["|".join(tag for tag, _ in found) or None for found in most]
    return items.append_column("tags", pa.array(joined, pa.string()))


def _convert_own(folder: Path, out: Path, suffix: str, plots: Path | None) -> dict[str, int]:
    """From ratings and movies, and users and tags where they are."""
    read = _read_dat if suffix == ".dat" else _read_csv
    users, movies, ratings, tags = (
        folder / f"{name}{suffix}" for name in ("users", "movies", "ratings", "tags")
    )
    with new_folder(out) as made:
        if users.exists():
            made.add("users", pa.concat_tables(read(users, _USERS)))
        items = _movies(pa.concat_tables(read(movies, _MOVIES)))
        if tags.exists():
            items = _add_tags(items, read(tags, _TAGS))
        made.add("items", items if plots is None else add_plots(items, plots, by_id=True))
        for rows in read(ratings, _RATINGS):
            made.add("interactions", rows)
        made.write_schema(
            movielens_schema(
                users=USERS if users.exists() else {},
                multi=("genres", "tags") if tags.exists() else ("genres",),
                has_plots=plots is not None,
            )
        )
    return made.num_rows


def convert_movielens(
    path: Path | str, out: Path | str, *, plots: Path | None = None
) -> dict[str, int]:
    """Write the data folder `out` from a folder of MovieLens; -> rows of each table.

    `path` holds ratings.dat or ratings.csv and what comes with them, or RecBole's atomic files of
    any data set with user_id, item_id, rating and timestamp. With `plots`, a file of them, items
    have a second text.
    """
    path, out = Path(path), Path(out)
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder")
    if (path / "ml-100k.inter").exists():
        return convert_100k(path, out, plots=plots)
    for suffix in (".dat", ".csv"):
        if (path / f"ratings{suffix}").exists():
            return _convert_own(path, out, suffix, plots)
    atomic = sorted(path.glob("*.inter"))
    if len(atomic) != 1:
        found = ", ".join(file.name for file in atomic) or "none of them"
        raise UserError(f"{path}: needs ratings.dat, ratings.csv or one NAME.inter; has {found}")
    return convert_atomic(atomic[0], out, plots=plots)
