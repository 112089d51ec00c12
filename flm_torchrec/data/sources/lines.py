"""Files of lines of any size, also gzipped, read in blocks; what is broken is told by line."""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
from pyarrow import csv as arrow_csv

from flm_torchrec.errors import UserError

_BLOCK = 16 << 20  # bytes, which no line may exceed
_UNIT = "\x1f"  # stands for a delimiter of several characters, which Arrow's reader lacks
_WANTED = {pa.int64(): "a whole number", pa.float64(): "a number", pa.string(): "UTF-8 text"}
_BAD_VALUE = re.compile(r"In CSV column #(\d+): Row #(\d+): [^:]*: (.*)", re.DOTALL)
_BAD_ROW = re.compile(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+)")


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The file's content, unpacked where its name ends in .gz."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(IO[bytes], file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be unpacked: {error}") from None


def read_header(path: Path, *, delimiter: str) -> list[str]:
    """The names in the first line."""
    with open_bytes(path) as file:
        first = file.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
    return next(csv.reader([first], delimiter=delimiter), [])


def read_delimited(
    path: Path,
    columns: Mapping[str, pa.DataType],
    *,
    delimiter: str,
    has_header: bool = False,
    has_quotes: bool = False,
    encoding: str = "utf8",
) -> Iterator[pa.Table]:
    """Blocks of rows; `columns` are all that the file has, in its order; an empty value is null."""
    with open_bytes(path) as file:
        is_long = len(delimiter) > 1
        source = cast(Any, _Replaced(file, delimiter) if is_long else file)
        try:
            reader = arrow_csv.open_csv(
                source,
                read_options=arrow_csv.ReadOptions(
                    use_threads=False,
                    column_names=list(columns),
                    skip_rows=int(has_header),
                    encoding=encoding,
                    block_size=_BLOCK,
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=_UNIT if is_long else delimiter,
                    quote_char='"' if has_quotes else False,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=columns, null_values=[""], strings_can_be_null=True
                ),
            )
            num_rows = 0
            for batch in reader:
                num_rows += batch.num_rows
                yield pa.Table.from_batches([batch])
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise UserError(f"{path}: {_told(str(error), columns)}") from None
    if num_rows == 0:
        raise UserError(f"{path}: has no data rows")


def _told(error: str, columns: Mapping[str, pa.DataType]) -> str:
    """An error of Arrow's reader in a user's words."""
    if row := _BAD_ROW.search(error):
        return f"line {row[1]}: {row[3]} values, where {row[2]} are needed: {', '.join(columns)}"
    if value := _BAD_VALUE.search(error):
        name, kind = list(columns.items())[int(value[1])]
        shown = value[3].removeprefix("invalid value ")
        wanted = _WANTED.get(kind, str(kind))
        return f"line {value[2]}, column '{name}': {shown}, where {wanted} is needed"
    return f"cannot be read: {error}"


class _Replaced:
    """A binary file of lines with `delimiter` replaced by a single character."""

    def __init__(self, file: IO[bytes], delimiter: str) -> None:
        self.file = file
        self.delimiter = delimiter.encode()
        self.ready = b""
        self.closed = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        while len(self.ready) < size and (lines := self.file.readlines(_BLOCK)):
            self.ready += b"".join(lines).replace(self.delimiter, _UNIT.encode())
        given, self.ready = self.ready[:size], self.ready[size:]
        return given

    def close(self) -> None:
        """Whoever opened the file closes it."""
        self.closed = True
