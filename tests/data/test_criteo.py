"""Twenty hand-made clicks of Criteo's layout."""

import gzip

import pandas as pd
import pytest

from flm_torchrec.data.checking.check import check
from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.schema import Feature, Hash, Schema
from flm_torchrec.data.sources.criteo import convert_criteo
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import load_yaml

ROWS = [
    "\t".join(
        [
            str(n % 2),
            *("" if (n + i) % 4 == 0 else str(n * i - 1) for i in range(13)),
            *("" if (n + c) % 9 == 0 else f"{n % 3 * 1000 + c:08x}" for c in range(26)),
        ]
    )
    for n in range(20)
]
CONTENT = "\n".join(ROWS) + "\n"


def test_a_file_becomes_a_log_of_context_alone(tmp_path):
    source, out = tmp_path / "train.txt", tmp_path / "out"
    source.write_text(CONTENT)
    assert convert_criteo(source, out) == {"interactions": 20}
    table = pd.read_parquet(out / "interactions.parquet")
    assert table.click.tolist() == [0, 1] * 10
    assert table.I2.iloc[:4].fillna(-9).tolist() == [-1, 0, 1, -9]
    assert table.C1.iloc[1:3].tolist() == ["000003e8", "000007d0"]
    assert pd.isna(table.C1[0])
    schema = load_yaml(out / "schema.yaml", Schema)
    context = schema.interactions.context
    assert len(context) == 39
    assert context["I13"] == Feature(kind="numeric")
    assert context["C26"] == Feature(kind="categorical")
    assert (schema.users, schema.items, schema.interactions.time) == (None, None, None)
    assert (schema.interactions.order, schema.interactions.history) == ("by_log", "none")


def test_what_is_written_has_no_problems_and_can_be_prepared(tmp_path):
    source, out = tmp_path / "train.txt", tmp_path / "out"
    source.write_text(CONTENT)
    convert_criteo(source, out)
    assert check(out).problems == []
    assert set(prepare(out).interactions.part) == {TRAIN, VALIDATION, TEST}


def test_days_come_by_number(tmp_path):
    folder, out = tmp_path / "days", tmp_path / "out"
    folder.mkdir()
    (folder / "day_10.gz").write_bytes(gzip.compress("\n".join(ROWS[12:]).encode()))
    (folder / "day_2").write_text("\n".join(ROWS[:12]))
    convert_criteo(folder, out)
    table = pd.read_parquet(out / "interactions.parquet")
    assert table.day.tolist() == [2] * 12 + [10] * 8
    assert table.click.tolist() == [0, 1] * 10


def test_values_may_share_rows_by_their_hash(tmp_path):
    source, out = tmp_path / "train.txt", tmp_path / "out"
    source.write_text(CONTENT)
    convert_criteo(source, out, hash_rows=1000)
    context = load_yaml(out / "schema.yaml", Schema).interactions.context
    assert context["C1"] == Feature(kind="categorical", hash=Hash(rows=1000))
    with pytest.raises(UserError, match="hash: 0; allowed: 1 or more"):
        convert_criteo(source, tmp_path / "other", hash_rows=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT.replace("\n", "\nx", 1), "line 2, column 'click': 'x1', where a whole number"),
        (CONTENT.replace("\n", "\t1\n", 1), "line 1: 41 values, where 40 are needed: click, I1"),
        ("", "is empty"),
    ],
)
def test_a_broken_line_is_told(tmp_path, content, message):
    (tmp_path / "train.txt").write_text(content)
    with pytest.raises(UserError, match=r"train\.txt: ") as caught:
        convert_criteo(tmp_path, tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_days_is_told(tmp_path):
    with pytest.raises(UserError, match=r"needs day_0, day_1, \.\.\. or one train\.txt"):
        convert_criteo(tmp_path, tmp_path / "out")


def test_a_file_that_is_not_whole_is_told(tmp_path):
    source = tmp_path / "day_0.gz"
    source.write_bytes(gzip.compress(CONTENT.encode())[:-20])
    with pytest.raises(UserError, match=r"day_0\.gz: cannot be unpacked"):
        convert_criteo(source, tmp_path / "out")
