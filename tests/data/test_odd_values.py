"""Values that plausible data hold, through infer, check and prepare."""

import pytest
from flm_apps import data as data_app
from small_data import write_folder

from flm_torchrec.data.checking.check import check
from flm_torchrec.data.checking.infer import infer
from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError


def changed(folder, name: str, old: str, new: str):
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder


def test_a_plus_before_a_whole_number_is_read(tmp_path):
    folder = changed(write_folder(tmp_path), "interactions.csv", "u2,i2,1,5", "u2,i2,+1,+5")
    expected = prepare(write_folder(tmp_path / "plain")).interactions
    found = prepare(folder).interactions
    assert found.labels["rating"].tolist()[:8] == expected.labels["rating"].tolist()[:8]
    assert found.time.tolist() == expected.time.tolist()


@pytest.mark.parametrize("smallest", [20_000_000, 2**60])
def test_classes_beyond_float32_stay_apart(tmp_path, smallest):
    folder = write_folder(tmp_path)
    changed(folder, "schema.yaml", "rating: {kind: ordinal}", "shop: multiclass")
    path = folder / "interactions.csv"
    first, *lines = path.read_text().splitlines()
    shops = [f"{line},{smallest + n % 2}" for n, line in enumerate(lines)]
    path.write_text("\n".join([f"{first},shop", *shops]) + "\n")
    data = prepare(folder)
    assert data.levels["shop"].tolist() == [0, 1]
    assert check(folder).problems == []
    by_source = data.interactions.labels["shop"][data.interactions.source_row.argsort()]
    assert by_source.tolist() == [n % 2 for n in range(9)]


def test_levels_beyond_float32_are_told(tmp_path):
    folder = changed(write_folder(tmp_path), "interactions.csv", "u2,i2,1,5", "u2,i2,16777217,5")
    with pytest.raises(UserError, match="column 'rating': 16777217 is not allowed; an ordinal"):
        prepare(folder)
    assert any("16777217 is not allowed" in problem for problem in check(folder).problems)


def test_a_folder_that_cannot_be_written_ends_in_one_line(tmp_path, capfd):
    folder = write_folder(tmp_path)
    (folder / "prepared").write_text("no folder")
    assert data_app.main(["prepare", str(folder)]) == 2
    told = capfd.readouterr().err
    assert told.startswith("flm: error: ")
    assert told.count("\n") == 1


def test_bad_rows_are_told_again_where_nothing_is_to_be_done(tmp_path):
    folder = changed(write_folder(tmp_path), "interactions.csv", "u2,i2,1,5", "u2,i2,one,5")
    changed(folder, "schema.yaml", "users:", "on_bad_rows: skip\nusers:")
    for _ in range(2):
        told: list[str] = []
        prepare(folder, progress=told.append)
        assert "interactions: 1 bad rows were left out: rating 1" in told


def test_a_repeated_pair_is_a_problem_whatever_becomes_of_bad_rows(tmp_path):
    folder = write_folder(tmp_path)
    changed(folder, "interactions.csv", "u2,i1,4,4", "u2,i2,4,4")
    changed(folder, "schema.yaml", "users:", "on_bad_rows: skip\nusers:")
    assert any("this user met this item" in problem for problem in check(folder).problems)


@pytest.mark.parametrize("zone", ["Z", "+02:00", ".125Z"])
def test_infer_sees_a_time_in_what_prepare_reads_as_one(tmp_path, zone):
    folder = write_folder(tmp_path)
    path = folder / "interactions.csv"
    first, *lines = path.read_text().splitlines()
    dated = [
        f"{line.rpartition(',')[0]},2024-01-0{n + 1}T10:00:00{zone}" for n, line in enumerate(lines)
    ]
    path.write_text("\n".join([first, *dated]) + "\n")
    (folder / "schema.yaml").unlink()
    assert infer(folder).interactions.time == "time"


def test_infer_proposes_no_threshold_at_infinity(tmp_path):
    folder = changed(write_folder(tmp_path), "interactions.csv", "u2,i2,1,5", "u2,i2,1e400,5")
    (folder / "schema.yaml").unlink()
    assert "inf" not in (infer(folder).interactions.labels["like"].value or "")


def test_infer_reads_on_where_the_first_part_is_short(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "schema.yaml").unlink()
    expected = infer(folder)
    first, *lines = (folder / "interactions.csv").read_text().splitlines()
    (folder / "interactions.csv").unlink()
    (folder / "interactions").mkdir()
    for number, part in enumerate((lines[:1], lines[1:])):
        file = folder / "interactions" / f"part-{number}.csv"
        file.write_text("\n".join([first, *part]) + "\n")
    assert infer(folder) == expected
