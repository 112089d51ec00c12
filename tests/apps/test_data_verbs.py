"""`flm data`: converting, inventing, proposing a schema and checking."""

import subprocess
import sys

import pandas as pd
import pytest
from flm_apps.data import main
from small_data import files_of, write_folder

from flm_torchrec.data.schema import Schema, Split
from flm_torchrec.typed_yaml import load_yaml


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


CLICKS = "\t".join(["1", *map(str, range(13)), *("ab" for _ in range(26))]) + "\n"
REVIEW = (
    '{"reviewerID": "A", "asin": "B", "overall": 5, "unixReviewTime": 7, "reviewText": "Good."}\n'
)
# layout -> files of the smallest data of it
LAYOUTS = {
    "movielens": {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,7,5,7\n",
        "movies.csv": "movieId,title,genres\n7,Heat (1995),Action\n",
    },
    "amazon": {"reviews.json": REVIEW},
    "mind": {
        "behaviors.tsv": "1\tU\t11/15/2019 9:55:12 AM\t\tN1-1\n",
        "news.tsv": "N1\tsports\tgolf\tTitle\tAbstract\t\t\t\n",
    },
    "criteo": {"day_0": CLICKS},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_convert_writes_a_folder_with_a_schema_from_a_public_layout(layout, tmp_path, capfd):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name, content in LAYOUTS[layout].items():
        (source / name).write_text(content)
    path = source / "reviews.json" if layout == "amazon" else source
    assert main(["convert", layout, str(path), "--out", str(out)]) == 0
    assert f"1 interactions, from the layout of {layout}" in capfd.readouterr().out
    load_yaml(out / "schema.yaml", Schema)
    before = files_of(out)
    assert main(["convert", layout, str(path), "--out", str(out)]) == 2
    assert "exists and is not an empty folder; nothing was changed" in capfd.readouterr().err
    assert files_of(out) == before


def test_fetch_synthetic_writes_what_was_planted_beside_the_data(tmp_path, capfd):
    out = tmp_path / "out"
    argv = ["fetch", "synthetic", "--kind", "impressions", "--interactions", "500"]
    assert main([*argv, "--users", "20", "--items", "30", "--out", str(out)]) == 0
    assert f"{out}: synthetic in" in capfd.readouterr().out
    assert (out / "truth.json").is_file()
    assert len(pd.read_parquet(out / "interactions.parquet")) == 500


def test_infer_prints_a_schema_and_writes_it_where_there_is_none(folder, capfd):
    known = files_of(folder)
    assert main(["infer", str(folder), "--write"]) == 2
    assert "schema.yaml: is there already; nothing was changed" in capfd.readouterr().err
    assert main(["infer", str(folder)]) == 0
    printed = capfd.readouterr().out
    assert files_of(folder) == known
    (folder / "schema.yaml").unlink()
    assert main(["infer", str(folder), "--write"]) == 0
    assert (folder / "schema.yaml").read_text() == printed
    load_yaml(folder / "schema.yaml", Schema)


def test_check_ends_with_1_where_there_are_problems(folder, capfd):
    assert main(["check", str(folder)]) == 0
    assert "0 problems" in capfd.readouterr().out
    table = folder / "interactions.csv"
    table.write_text(table.read_text() + "u1,i2,abc,9\n")
    assert main(["check", str(folder)]) == 1
    assert "data row 10, column 'rating': 'abc' is not a number" in capfd.readouterr().out


def test_no_verb_imports_torch(folder, tmp_path):
    fetch = ["fetch", "synthetic", "--kind", "context", "--interactions", "10"]
    verbs = [
        [*fetch, "--out", str(tmp_path / "out")],
        *([verb, str(folder)] for verb in ("infer", "check", "prepare")),
    ]
    code = (
        "import sys\nfrom flm_apps.data import main\n"
        f"for verb in {verbs!r}:\n    assert main(verb) == 0\n"
        "from flm_torchrec.data.sources import amazon, criteo, grouplens, mind\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_split_copies_a_folder_that_holds_out_something_else(folder, tmp_path, capfd):
    assert main(["prepare", str(folder)]) == 0
    out = tmp_path / "cold"
    arguments = ["split", str(folder), "--kind", "item_cold", "--test", "0.3", "--out", str(out)]
    assert main(arguments) == 0
    assert "split item_cold" in capfd.readouterr().out
    schema, before = (load_yaml(f / "schema.yaml", Schema) for f in (out, folder))
    assert schema.split == Split(kind="item_cold", test=0.3)
    assert schema.model_copy(update={"split": None}) == before.model_copy(update={"split": None})
    assert sorted(f.name for f in out.iterdir()) == sorted(
        f.name for f in folder.iterdir() if f.name not in ("prepared", "splits", "quarantine")
    )
    assert main(["prepare", str(out)]) == 0
    assert (out / "splits" / "item_cold.parquet").is_file()
    assert main(arguments) == 2
    assert f"{out}: is there already" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--kind", "items"], "split.kind: 'items' is not allowed; it should be 'leave_one_out'"),
        (["--kind", "random", "--test", "1"], "split.test: 1.0 is not allowed"),
    ],
)
def test_split_names_what_is_no_split(folder, tmp_path, capfd, more, told):
    assert main(["split", str(folder), "--out", str(tmp_path / "other"), *more]) == 2
    assert told in capfd.readouterr().err
    assert not (tmp_path / "other").exists()
