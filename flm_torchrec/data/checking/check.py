"""What is in a data folder and what is wrong with it, all of it at once; nothing is written.

Example:
    print(check(Path("data/ml-100k")).text())
"""

from dataclasses import dataclass, field
from pathlib import Path

from flm_torchrec.data.checking.check_log import check_interactions
from flm_torchrec.data.checking.findings import Catalogue, Findings
from flm_torchrec.data.checking.survey import Survey
from flm_torchrec.data.checking.uses import columns_of, corpus_uses, entity_uses
from flm_torchrec.data.preparing.data_schema import earlier_folder, load_schema
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.reading.parts import is_there
from flm_torchrec.data.schema import EntitySchema, Schema, template_columns
from flm_torchrec.data.storage import is_prepared

_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found, by table."""

    tables: dict[str, Findings] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What `prepare` stops at."""
        return [line for found in self.tables.values() for line in found.problems]

    @property
    def warnings(self) -> list[str]:
        """What is allowed and yet hardly meant."""
        return [line for found in self.tables.values() for line in found.warnings]

    def text(self) -> str:
        """The report for a terminal."""
        lines = []
        for name, found in self.tables.items():
            lines += [name, *(f"  {fact}" for fact in found.facts)]
        for name, found in (("problems", self.problems), ("warnings", self.warnings)):
            lines += [f"{len(found)} {name}", *(f"  {line}" for line in found[:_MOST_SHOWN])]
            if len(found) > _MOST_SHOWN:
                lines.append(f"  and {len(found) - _MOST_SHOWN} more")
        return "\n".join(lines)


def check(folder: Path | str) -> Report:
    """Read all tables of `folder`, a path or a URL that fsspec knows, by its schema.yaml; tell what
    is in them and what is wrong."""
    location = Location.existing(folder)
    schema = load_schema(location)
    _check_growth(location, schema)
    report = Report()
    catalogues = {
        name: _check_catalogue(location, name, entity, report)
        for name, entity in (("users", schema.users), ("items", schema.items))
        if entity is not None
    }
    if schema.interactions is not None:
        report.tables["interactions"] = check_interactions(location, schema, catalogues)
    if schema.corpus is not None:
        survey = Survey("corpus")
        for chunk in survey.chunks(location, ()):
            survey.read_all(chunk, corpus_uses(schema.corpus))
        report.tables["corpus"] = survey.findings(set(template_columns(schema.corpus)))
    return report


def _check_growth(location: Location, schema: Schema) -> None:
    """Raise unless all the data are there that these grow from."""
    later: list[str] = []
    while (before := earlier_folder(location, schema, later)) is not None:
        if is_prepared(before.made):
            return
        later.append(location.url)
        location, schema = before, load_schema(before)


def _check_catalogue(
    location: Location, name: str, entity: EntitySchema, report: Report
) -> Catalogue | None:
    """The catalogue of users or items, or None where nothing can be compared with it."""
    survey, uses = Survey(name), entity_uses(entity)
    if len(uses) == 1 and not is_there(location, name):
        return None
    catalogue, is_whole = Catalogue(), True
    counted = {column for kind, column in uses if kind in ("id", "categorical")}
    for chunk in survey.chunks(location, counted):
        columns = survey.read_all(chunk, uses)
        ids = columns.pop(("id", entity.id), None)
        if ids is None:
            is_whole = False
            continue
        survey.check_spelling(entity.id, ids)
        if len(repeated := catalogue.add(ids, columns)):
            what = f"id {ids[int(repeated[0])]} is already in an earlier row"
            survey.tell("repeated", chunk, repeated.tolist(), entity.id, what)
    report.tables[name] = survey.findings(columns_of(entity))
    return catalogue if is_whole and len(catalogue.ids) else None
