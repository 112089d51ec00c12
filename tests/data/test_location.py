"""Data folders elsewhere: read from where they are, prepared into a local cache."""

from pathlib import Path

import fsspec
import pytest
from small_data import LOG, SMALL, write_folder

from flm_torchrec.data.checking.check import check
from flm_torchrec.data.checking.infer import infer
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.reading.location import Location
from flm_torchrec.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/flm_torchrec/prepared"


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def test_a_folder_elsewhere_is_prepared_into_the_cache(tmp_path, cache, memory):
    for name, content in SMALL.items():
        memory.pipe(f"/data/small/{name}", content.encode())
    data = prepare("memory://data/small/")
    here = prepare(write_folder(tmp_path / "here"))
    assert data.interactions.item.tolist() == here.interactions.item.tolist()
    assert data.items.text == here.items.text
    (made,) = cache.iterdir()
    assert {path.name for path in made.iterdir()} == {"splits", "prepared", "schema.yaml"}
    assert {name.rpartition("/")[2] for name in memory.find("/data")} == set(SMALL)
    assert prepare("memory://data/small").fingerprint == data.fingerprint
    memory.pipe("/data/small/users.csv", SMALL["users.csv"].replace("cook", "chef").encode())
    assert prepare("memory://data/small").fingerprint != data.fingerprint


def test_a_folder_elsewhere_is_checked_and_gets_a_schema(tmp_path, cache, memory):
    here = write_folder(tmp_path / "here")
    for name, content in SMALL.items():
        memory.pipe(f"/data/small/{name}", content.encode())
    assert check("memory://data/small").text() == check(here).text()
    assert infer("memory://data/small") == infer(here)


def test_parts_elsewhere_are_read(cache, memory):
    header, *rows = LOG["interactions.csv"].splitlines()
    memory.pipe("/log/schema.yaml", LOG["schema.yaml"].encode())
    for place, lines in enumerate((rows[:4], rows[4:])):
        text = "\n".join([header, *lines]) + "\n"
        memory.pipe(f"/log/interactions/{place}.csv", text.encode())
    assert prepare("memory://log").interactions.source_row.tolist() == list(range(10))


def test_what_is_wrong_elsewhere_is_told_by_its_place(cache, memory):
    with pytest.raises(UserError, match="memory://nowhere: there is no such folder"):
        prepare("memory://nowhere")
    memory.pipe("/bad/users.csv", b"user_id\n1\n")
    with pytest.raises(UserError, match=r"memory://bad/schema.yaml: there is no such file"):
        prepare("memory://bad")
    memory.pipe("/bad/schema.yaml", b"user: 1\n")
    with pytest.raises(UserError, match=r"^memory://bad/schema.yaml: user: there is no such key"):
        prepare("memory://bad")
    for place in ("nonsense://data", "zip://data::/nowhere.zip"):
        with pytest.raises(UserError, match=f"{place}: cannot be reached"):
            prepare(place)


def test_a_path_is_where_its_splits_go(tmp_path):
    assert Location.of(tmp_path).made == tmp_path
    assert Location.of(str(tmp_path)).is_local


def test_parts_are_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 1):
        (tmp_path / "log").mkdir(exist_ok=True)
        (tmp_path / "log" / f"part-{number}.csv").write_text("a\n1\n")
    found = Location.of(tmp_path).files("log")
    assert found == ["log/part-1.csv", "log/part-2.csv", "log/part-10.csv"]


def test_a_folder_among_the_parts_is_told(tmp_path):
    (tmp_path / "log" / "day=1").mkdir(parents=True)
    (tmp_path / "log" / "_temporary").mkdir()
    with pytest.raises(UserError, match=r"log/day=1: is a folder; the parts of a table lie side"):
        Location.of(tmp_path).files("log")


def test_a_folder_beside_a_remote_one_is_found():
    assert Location.of("memory://data/new").beside("../old") == "memory://data/old"
