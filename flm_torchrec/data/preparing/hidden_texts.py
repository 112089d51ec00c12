"""The items' texts as they would be without one of their columns."""

from pathlib import Path

from flm_torchrec.data.compute import pc
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.preparing.templates import rendered
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.reading.tables import read_table
from flm_torchrec.data.schema import template_columns


def texts_without(folder: Path | str, dataset: Dataset, column: str) -> dict[str, list[str]]:
    """name -> (rows,) the texts of the data prepared from `folder`, their templates filled in as
    if `column` were missing everywhere."""
    items, schema = dataset.items, dataset.schema.items
    assert items is not None
    assert schema is not None
    texts, table = dict(items.text), None
    for name, template in schema.text.items():
        if isinstance(template, str) and column in template_columns(template):
            table = table or read_table(Location.existing(folder), "items")
            found = rendered(table, template, schema.features, hidden=column)
            found = pc.fill_null(found, "").to_pylist()
            texts[name] = ["", *found, *items.text[name][1 + len(found) :]]
    return texts
