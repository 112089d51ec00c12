"""Stage the interactions of a data folder: every row checked, the bad ones left out or told."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from flm_torchrec.data.preparing.entities import Catalogue
from flm_torchrec.data.preparing.features import vector_width
from flm_torchrec.data.preparing.log_chunk import LogReader
from flm_torchrec.data.preparing.staging import StagedLog, Stager, write_arrow
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.reading.parts import Part, Piece, check_columns, parts_of
from flm_torchrec.data.reading.tables import CHUNK_ROWS, piece_tables
from flm_torchrec.data.schema import Schema
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file

# Like the builtin map: results in order, each made of one piece.
Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
ID_KEYS = {"users": "user", "items": "item"}


def stage_log(
    location: Location,
    schema: Schema,
    catalogues: Mapping[str, Catalogue],
    folder: Path,
    *,
    mapper: Mapper,
    progress: Callable[[str], None],
) -> StagedLog:
    """Fill `folder` with the chunks of the interactions, but for those that are there."""
    parts = parts_of(location, "interactions")
    columns = LogReader(schema).columns()
    check_columns(parts, columns)
    pieces = [piece for part in parts for piece in part.pieces(CHUNK_ROWS)]
    _keep_or_clear(folder, pieces)
    assert schema.interactions is not None
    known = {}
    for name, catalogue in catalogues.items():
        if catalogue.table is not None and schema.interactions.unknown_ids == "error":
            key = ID_KEYS[name]
            known[key] = Path(str(catalogue.table.path)).name
            write_arrow(folder / f"{key}.arrow", pa.record_batch({"id": catalogue.ids}))
    stager = Stager(
        folder=folder,
        schema=schema,
        widths=_widths(schema, pieces),
        catalogues=known,
        chunk_rows=CHUNK_ROWS,
    )
    files = []
    for place, found in enumerate(mapper(stager, list(enumerate(pieces))), start=1):
        files += found
        progress(f"interactions: {place} of {len(pieces)} pieces read")
    if not files:
        raise UserError(f"{parts[0].path}: has no data rows")
    staged = StagedLog(folder, files)
    _check_bad(staged, log_path(location, parts))
    return staged


def _keep_or_clear(folder: Path, pieces: Iterable[Piece]) -> None:
    """Write the manifest of what is to be in the folder; chunks of another one go."""
    listed = [[piece.part.file, list(piece.row_groups), piece.first_row] for piece in pieces]
    manifest = json.dumps({"chunk_rows": CHUNK_ROWS, "pieces": listed}, indent=1)
    path = folder / "manifest.json"
    if path.exists() and path.read_text(encoding="utf-8") == manifest:
        return
    for left in folder.iterdir():
        left.unlink()
    with atomic_file(path) as file:
        file.write_text(manifest, encoding="utf-8")


def log_path(location: Location, parts: Sequence[Part]) -> str:
    """What messages about all interactions call them."""
    return str(parts[0].path if len(parts) == 1 else location.path("interactions"))


def _widths(schema: Schema, pieces: Iterable[Piece]) -> dict[str, int]:
    """The width of each vector of the context: that of the first there is."""
    assert schema.interactions is not None
    context = schema.interactions.context
    wanted = {name for name, feature in context.items() if feature.kind == "vector"}
    widths: dict[str, int] = {}
    for piece in pieces:
        if wanted == set(widths):
            break
        for table in piece_tables(piece, columns=sorted(wanted), collect=True):
            for name in wanted - set(widths):
                width = vector_width(table, name, context[name].separator)
                widths |= {} if width is None else {name: width}
    if missing := sorted(wanted - set(widths)):
        raise UserError(f"interactions: column '{missing[0]}' holds no vector in any row")
    return widths


def _check_bad(staged: StagedLog, path: str) -> None:
    bad = staged.bad()
    total = bad.num_rows + staged.columns.num_rows
    if 2 * bad.num_rows > total:
        first = bad.slice(0, 1).to_pylist()[0]
        place = f"{first['file']}: data row {first['row']}"
        column = f", column '{first['column']}'" if first["column"] else ""
        value = f" ('{first['value']}')" if first["value"] else ""
        raise UserError(
            f"{path}: {bad.num_rows} of {total} data rows cannot be used, more than half; "
            f"the first is {place}{column}: {first['reason']}{value}"
        )
