"""Texts of no item, by which a language model is trained further."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from flm_torchrec.data.preparing.templates import rendered
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.reading.tables import read_chunks
from flm_torchrec.errors import UserError

FILE = "corpus.parquet"


def write_corpus(location: Location, template: str, folder: Path) -> int:
    """Write the rendered rows of a data folder's corpus, empty ones left out; gives their count."""
    count = 0
    with parquet.ParquetWriter(folder / FILE, pa.schema({"text": pa.large_string()})) as writer:
        for table in read_chunks(location, "corpus"):
            texts = rendered(table, template, {}).drop_null()
            writer.write_table(pa.table({"text": texts}))
            count += len(texts)
    if count == 0:
        raise UserError(f"{location.path('corpus')}: all rows are empty; texts are needed")
    return count
