"""The schema of a data folder, with what can be said of it before any table is read."""

from collections.abc import Collection

from flm_torchrec.data.preparing.features import SECOND_WAY
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.schema import Hash, Schema
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file
from flm_torchrec.typed_yaml import load_yaml

_FILE = "schema.yaml"


def load_schema(location: Location) -> Schema:
    """Read schema.yaml; of a remote folder by way of a copy in the cache."""
    path = location.path(_FILE)
    if not location.has(_FILE):
        raise UserError(
            f"{path}: there is no such file; `flm data infer {location.url}` proposes one"
        )
    if location.is_local:
        schema = load_yaml(path, Schema)
    else:
        copy = location.made / _FILE
        with location.open(_FILE) as source, atomic_file(copy) as file:
            file.write_bytes(source.read())
        try:
            schema = load_yaml(copy, Schema)
        except UserError as error:
            raise UserError(str(error).replace(str(copy), str(path))) from None
    _check_names(location, schema)
    return schema


def _check_names(location: Location, schema: Schema) -> None:
    """Refuse a feature that has the name of another's second table."""
    named: dict[str, dict[str, Hash | None]] = {}
    for table, entity in (("users", schema.users), ("items", schema.items)):
        if entity is not None:
            hashes = {name: feature.hash for name, feature in entity.features.items()}
            named[f"{table}.features"] = {entity.id: entity.hash, **hashes}
    if schema.interactions is not None:
        context = schema.interactions.context
        named["interactions.context"] = {name: feature.hash for name, feature in context.items()}
    for key, hashes in named.items():
        second = {f"{n}{SECOND_WAY}" for n, hash in hashes.items() if hash and hash.ways == 2}
        if twice := sorted(second & hashes.keys()):
            raise UserError(
                f"{location.path(_FILE)}: {key}: two features are called '{twice[0]}', of which "
                "one is the second of a 'ways: 2'; rename the column"
            )


def earlier_folder(
    location: Location, schema: Schema, later: Collection[str] = ()
) -> Location | None:
    """The data that these grow from, if from any; `later` are those that grow from these."""
    if schema.grow_from is None:
        return None
    before = Location.of(location.beside(schema.grow_from))
    where = f"{location.path(_FILE)}: grow_from: {schema.grow_from}"
    if before.url in (*later, location.url):
        raise UserError(
            f"{where} grows from this folder itself; allowed: data that was there before"
        )
    if not before.exists():
        raise UserError(f"{where}: there is no folder {before.url}")
    return before
