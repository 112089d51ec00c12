"""Twenty hand-made impressions of MIND."""

import pandas as pd
import pytest

from flm_torchrec.data.checking.check import check
from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.schema import Schema
from flm_torchrec.data.sources.mind import SCHEMA, convert_mind
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import load_yaml

NEWS = "".join(
    f'N{n}\t{["sports", "news"][n % 2]}\tsub{n % 3}\tTitle "{n}"\t{abstract}\thttps://x/{n}\t[]\t[]\n'
    for n, abstract in enumerate(["About.", "", *["More."] * 6])
)
# U1's first impression by time is the second line.
BEHAVIORS = """1\tU1\t11/15/2019 9:55:12 AM\tN7\tN1-0 N2-1 N3-0
2\tU1\t11/11/2019 1:00:00 PM\tN4 N5\tN2-0 N6-1
3\tU2\t11/12/2019 12:00:00 AM\t\tN1-1 N3-0
""" + "".join(
    f"{n}\tU{n % 4}\t11/{n}/2019 10:00:00 AM\tN0\tN{n % 7}-0 N{n % 5}-1\n" for n in range(12, 29)
)


def written(folder, behaviors=BEHAVIORS, news=NEWS):
    folder.mkdir(parents=True)
    (folder / "behaviors.tsv").write_text(behaviors, encoding="utf-8")
    (folder / "news.tsv").write_text(news, encoding="utf-8")
    return folder


def interactions(out):
    return pd.read_parquet(out / "interactions.parquet")


def test_a_candidate_is_a_row(tmp_path):
    out = tmp_path / "out"
    rows = convert_mind(written(tmp_path / "mind"), out)
    table = interactions(out)
    shown = table[table.event == "impression"]
    assert len(BEHAVIORS.splitlines()) == 20
    assert len(shown) == 3 + 2 + 2 + 17 * 2
    assert rows == {"items": 8, "interactions": len(table)}
    first = shown.iloc[:3]
    assert first.user_id.tolist() == ["U1"] * 3
    assert first.item_id.tolist() == ["N1", "N2", "N3"]
    assert first.click.tolist() == [0, 1, 0]
    assert first.position.tolist() == [1, 2, 3]
    assert first.impression.tolist() == [0, 0, 0]
    assert shown.impression.iloc[3:7].tolist() == [1, 1, 2, 2]
    assert set(first.timestamp) == {pd.Timestamp("2019-11-15 09:55:12").timestamp()}
    assert shown.timestamp.iloc[5] == pd.Timestamp("2019-11-12 00:00:00").timestamp()


def test_clicks_before_the_log_stand_before_the_first_impression(tmp_path):
    out = tmp_path / "out"
    convert_mind(written(tmp_path / "mind"), out)
    table = interactions(out)
    before = table[table.event == "history"]
    assert before.index.tolist() == list(range(len(before)))
    of_user = before.groupby("user_id").item_id.apply(list).to_dict()
    assert of_user == {"U0": ["N0"], "U1": ["N4", "N5"], "U3": ["N0"]}
    assert before.click.tolist() == [1] * 4
    first = table[table.event == "impression"].groupby("user_id").timestamp.min()
    assert (before.timestamp == before.user_id.map(first) - 1).all()
    assert before.position.isna().all()


def test_the_schema_reads_shown_and_not_clicked_as_negatives(tmp_path):
    out = tmp_path / "out"
    convert_mind(written(tmp_path / "mind"), out)
    schema = load_yaml(out / "schema.yaml", Schema)
    assert schema == SCHEMA
    assert schema.interactions.negatives == "logged"
    assert schema.interactions.labels["click"].where == "event == impression"
    assert list(schema.items.text) == ["title", "abstract"]
    items = pd.read_parquet(out / "items.parquet")
    assert items.title[1] == 'Title "1"'
    assert items.abstract.isna().tolist() == [False, True, *[False] * 6]


def test_what_is_written_has_no_problems_and_can_be_prepared(tmp_path):
    out = tmp_path / "out"
    convert_mind(written(tmp_path / "mind"), out)
    assert check(out).problems == []
    assert set(prepare(out).interactions.part) == {TRAIN, VALIDATION, TEST}


def test_train_comes_before_dev_and_news_count_once(tmp_path):
    lines = BEHAVIORS.splitlines(keepends=True)
    more = "N9\tnews\tsub\tNine\t\t\t\t\n"
    written(tmp_path / "mind/MINDsmall_dev", "".join(lines[2:3]), NEWS + more)
    written(tmp_path / "mind/MINDsmall_train", "".join(lines[:2]))
    out = tmp_path / "out"
    convert_mind(tmp_path / "mind", out)
    table = interactions(out)
    assert table.impression.dropna().tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert table.user_id.tolist() == ["U1"] * 7 + ["U2"] * 2
    assert len(pd.read_parquet(out / "items.parquet")) == 9


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("11/15/2019 9", "15/11/2019 9", "line 1, column 'time': '15/11/2019 9:55:12 AM', where"),
        ("N2-0 N6-1", "N2-0 N6", "line 2, column 'candidates': 'N6', where a news id with -0 or"),
        ("N1-1 N3-0\n", "\n", "line 3, column 'candidates': '', where a value is needed"),
        ("2\tU1", "2\t", "line 2, column 'user_id': '', where a value is needed"),
        ("1\tU1\t", "1\t", "line 1: 4 values, where 5 are needed"),
    ],
)
def test_a_broken_line_is_told(tmp_path, old, new, message):
    assert old in BEHAVIORS
    folder = written(tmp_path / "mind", BEHAVIORS.replace(old, new, 1))
    with pytest.raises(UserError, match=r"behaviors\.tsv: ") as caught:
        convert_mind(folder, tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_behaviors_is_told(tmp_path):
    with pytest.raises(UserError, match=r"has no behaviors\.tsv"):
        convert_mind(tmp_path, tmp_path / "out")


def test_blanks_around_a_history_are_no_clicks(tmp_path):
    blank = BEHAVIORS.replace("\tN4 N5\t", "\t N4 N5 \t").replace("AM\t\tN1-1", "AM\t \tN1-1")
    assert blank != BEHAVIORS
    plain, out = tmp_path / "plain", tmp_path / "out"
    convert_mind(written(tmp_path / "one"), plain)
    convert_mind(written(tmp_path / "two", blank), out)
    pd.testing.assert_frame_equal(interactions(out), interactions(plain))
