"""Plots of films, `ml-1m-movie-plots.dat`: a text beside the title."""

import re
from pathlib import Path

import pyarrow as pa

from flm_torchrec.data.sources.lines import read_delimited
from flm_torchrec.errors import UserError

_COLUMNS = {
    "movie_id": pa.int64(),
    "title": pa.string(),
    "year": pa.int64(),
    **dict.fromkeys(["rating", "release", "genres", "director", "writers", "actors"], pa.string()),
    "plot": pa.string(),
    "poster": pa.string(),
}
_ARTICLE_LAST = re.compile(r"(.*), (the|a|an|la|le|les|l'|il|el|los|das|der|die)( \(.*\))?")


def _key(title: str | None, year: int | None) -> tuple[str, int | None]:
    """What films of equal name have in common: "Contender, The" is "The Contender"."""
    name = (title or "").strip().lower()
    if match := _ARTICLE_LAST.fullmatch(name):
        name = f"{match[2]} {match[1]}"
    return name, year


def add_plots(items: pa.Table, path: Path, *, by_id: bool) -> pa.Table:
    """`items` with the column `plot`, null where there is none.

    The films are found by `item_id`, where it is MovieLens's own id, else by `title` and `year`.
    """
    plots = pa.concat_tables(read_delimited(path, _COLUMNS, delimiter="::"))
    texts = plots["plot"].to_pylist()
    if by_id:
        keys, wanted = plots["movie_id"].to_pylist(), items["item_id"].to_pylist()
    else:
        keys = map(_key, plots["title"].to_pylist(), plots["year"].to_pylist())
        wanted = map(_key, items["title"].to_pylist(), items["year"].to_pylist())
    found = dict(zip(keys, texts, strict=True))
    column = [found.get(key) for key in wanted]
    if not any(column):
        raise UserError(f"{path}: has none of the films")
    return items.append_column("plot", pa.array(column, pa.string()))
