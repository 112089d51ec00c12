"""Broken files, forms and schemas, told in one message; and what looks broken and has to work."""

from pathlib import Path

import pytest
from broken_folders import (
    Broken,
    Change,
    assert_told,
    cut,
    in_parquet,
    moved,
    not_utf8,
    packed,
    recoded,
    removed,
    replaced,
    twice_in_parquet,
    written,
)
from small_data import LOG

MET, USERS, ITEMS, SCHEMA = "interactions.csv", "users.csv", "items.csv", "schema.yaml"
HEADER = "user,item,rating,time\n"
TEXTS = {SCHEMA: 'corpus: "{text}"\n', "corpus.txt": "One text.\nAnother one.\n"}


def table(*changes: Change, told: str, checked: str | None = None) -> Broken:
    return Broken(changes=changes, told=told, checked=checked)


def corpus(*changes: Change, told: str) -> Broken:
    return Broken(changes=changes, told=told, files=TEXTS)


def schema(old: str, new: str | bytes, told: str) -> Broken:
    return Broken(changes=(replaced(SCHEMA, old, new),), told=f"{SCHEMA}: {told}")


def of_log(old: str, new: str, told: str) -> Broken:
    """The schema of the log of impressions with another part."""
    return Broken(changes=(replaced(SCHEMA, old, new),), told=f"{SCHEMA}: {told}", files=LOG)


FILES = {
    "interactions without a row": table(written(MET, HEADER), told=f"{MET}: has no data rows"),
    "blank lines alone": table(written(ITEMS, "\n\n\n"), told=f"{ITEMS}: has no data rows"),
    "no file of users": table(removed(USERS), told="has neither of users.parquet and users.csv"),
    "both csv and parquet": table(
        written("items.parquet", b"x"), told="has both items.parquet and items.csv; one of them"
    ),
    "both file and folder": table(
        written("items/0.csv", "x\n"), told="has both items.csv and the folder items; one of"
    ),
    "folder without parts": table(
        moved(ITEMS, "items/more/0.csv"), told="more: is a folder; the parts of a table lie side"
    ),
    "folder named as a file": table(
        moved(ITEMS, "x/0.csv"),
        lambda folder: (folder / "x").rename(folder / ITEMS),
        told=f"{ITEMS}: is no file",
        checked=f"{ITEMS}: cannot be read as csv",
    ),
    "part of another column": table(
        moved(MET, "interactions/0.csv"),
        written("interactions/1.csv", "user,item,time\nu3,i3,9\n"),
        told="1.csv: column 'rating' is missing, but in interactions/0.csv it holds texts",
    ),
    "part of another type": table(
        in_parquet("interactions"),
        moved("interactions.parquet", "interactions/0.parquet"),
        written(MET, HEADER + "u3,i3,good,1\n"),
        in_parquet("interactions"),
        moved("interactions.parquet", "interactions/1.parquet"),
        told="1.parquet: column 'rating' holds texts, but in interactions/0.parquet it holds numb",
    ),
    "parts of two kinds": table(
        moved(MET, "interactions/0.csv"),
        written("interactions/1.parquet", b"x"),
        told="1.parquet: interactions/0.csv is csv; parts are of a kind",
    ),
    "part that is no table": table(
        moved(MET, "interactions/0.csv"),
        written("interactions/README.md", "x"),
        told="README.md: is no part; allowed are parquet, csv",
    ),
    "empty part": table(
        moved(MET, "interactions/0.csv"),
        written("interactions/1.csv", ""),
        told="1.csv: is empty",
    ),
    "parquet cut in half": table(
        in_parquet("items"), cut("items.parquet", 900), told="items.parquet: cannot be read as parq"
    ),
    "parquet with a broken page": table(
        in_parquet("items"),
        recoded("items.parquet", lambda b: b[:4] + b"x" * 99 + b[103:]),
        told="items.parquet: cannot be read as parquet",
    ),
    "csv called parquet": table(
        moved(ITEMS, "items.parquet"), told="items.parquet: cannot be read as parquet"
    ),
    "parquet called csv": table(
        in_parquet("items"), moved("items.parquet", ITEMS), told=f"{ITEMS}: cannot be read as csv"
    ),
    "packed csv": table(recoded(ITEMS, packed), told=f"{ITEMS}: cannot be read as csv"),
    "one column twice in parquet": table(
        twice_in_parquet("items", "title"), told="items.parquet: the header has title more than on"
    ),
}
FORMS = {
    "two columns without a name": table(
        recoded(MET, lambda content: content.replace(b"time\n", b"time,,\n")),
        told=f"{MET}: the header has '' more than once",
    ),
    "a byte of NUL in the header": table(
        replaced(ITEMS, "title", "ti\0tle"), told=f"{ITEMS}: no column 'title' (did you mean 'ti"
    ),
    "no header": table(
        replaced(MET, HEADER, ""), told=f"{MET}: no column 'user'; it has u2, i2, 1, 5"
    ),
    "semicolons": table(
        recoded(MET, lambda content: content.replace(b",", b";")),
        told=f"{MET}: no column 'user'; it has user;item;rating;time",
    ),
    "blanks in the header": table(
        replaced(MET, HEADER, "user, item, rating, time\n"),
        told=f"{MET}: no column 'item' (did you mean ' item'?)",
    ),
    "a header in capitals": table(
        replaced(MET, "user,", "User,"), told=f"{MET}: no column 'user' (did you mean 'User'?)"
    ),
    "a web page": table(written(MET, "<html>\n404\n"), told=f"{MET}: no column 'user'; it has <h"),
    "a quote that is not closed": table(
        replaced(ITEMS, "i2,Two", 'i2,"Two'),
        told=f"{ITEMS}: data row 2: holds 1 whole rows; allowed",
    ),
    "a quote within quotes": table(
        replaced(ITEMS, "i2,Two", 'i2,"Two "so, called"'), told=f"{ITEMS}: data row 2: 5 values wh"
    ),
    "a decimal comma": table(
        replaced(MET, "u1,i2,3,2", "u1,i2,3,5,2"), told=f"{MET}: data row 3: 5 values where the"
    ),
    "a last row cut off": table(cut(MET, -6), told=f"{MET}: data row 9: 2 values where the header"),
    "a wide row below blank lines": table(
        replaced(MET, "u1,i2,3,2", "\n\nu1,i2,3,2,9"), told=f"{MET}: data row 3: 5 values where"
    ),
    "a wide row below a title of lines": table(
        replaced(ITEMS, "i1,One", 'i1,"O\nn\ne"'),
        replaced(ITEMS, "i3,Three,", "i3,Three,,,"),
        told=f"{ITEMS}: data row 3: 6 values where the header has 4: i3,Three,,,,c",
    ),
    "UTF-16": table(
        recoded(ITEMS, lambda content: content.decode().encode("utf-16")),
        told=f"{ITEMS}: cannot be read as csv: line 1 is not UTF-8 text",
    ),
    "Latin-1 far below": table(
        recoded(MET, lambda content: content + b"u4,i1,1,9\n" * 2000 + b"u\xe9,i1,1,9\n"),
        told=f"{MET}: cannot be read as csv: data row 2010 is not UTF-8 text",
    ),
    "no UTF-8 in parquet": table(
        not_utf8("items", "title"), told="items.parquet: cannot be read as parquet: In column 1"
    ),
}
SCHEMAS = {
    "an unknown kind": schema("job: categorical", "job: text", "users.features.job: 'text' is not"),
    "an unknown label": schema(
        "{kind: ordinal}", "rank", "interactions.labels.rating: 'rank' is n"
    ),
    "an unknown section": schema("items:", "item:", "item: there is no such key; did you mean 'it"),
    "no id": schema("  id: user_id\n", "", "users.id: is missing"),
    "a number as a column": schema("user: user", "user: 3", "interactions.user: 3 is not allowed"),
    "a key twice": schema("item: item", "item: item\n  item: item", "not valid YAML in line 11"),
    "tabs": schema(
        "  user: user", "\tuser: user", "not valid YAML in line 9, column 1: found char"
    ),
    "Latin-1": schema("user: user", b"user: \xe9", "is not UTF-8 text"),
    "a list": table(written(SCHEMA, "- users\n"), told=f"{SCHEMA}: holds ['users']; a mapping of"),
    "nothing": table(written(SCHEMA, "# soon\n"), told=f"{SCHEMA}: is empty; these keys are allow"),
    "no interactions": table(
        written(SCHEMA, "interactions:\n"), told=f"{SCHEMA}: holds neither interactions nor a corp"
    ),
    "a yes for a hash": schema(
        "job: categorical", "job: {kind: categorical, hash: yes}", "users.features.job.hash: True"
    ),
    "a hash of no rows": schema(
        "job: categorical", "job: {kind: categorical, hash: 0}", "users.features.job.hash: 0 is not"
    ),
    "an empty separator": schema(
        'separator: "|"', "separator: ''", "items.features.genres.separator: '' is not allowed"
    ),
    "an unknown policy": schema(
        "repeats: false", "unknown_ids: drop", "interactions.unknown_ids: 'drop' is not allowed; it"
    ),
    "a policy for bad rows": schema(
        "users:", "on_bad_rows: drop\nusers:", "on_bad_rows: 'drop' is not allowed; it should be"
    ),
    "a predicate of =": schema(
        "rating >= 4", "rating = 4", "interactions.labels.like: 'rating = 4'"
    ),
    "a predicate with or": of_log(
        "history: click == 1", "history: click == 1 or click == 2", "interactions.history: 'click"
    ),
    "a predicate on NaN": of_log(
        "history: click == 1", "history: click >= nan", "interactions.history: 'click >= nan': 'nan"
    ),
    "words compared by size": of_log(
        "history: click == 1",
        "history: device > tv",
        "interactions.history: 'device > tv': 'tv' is",
    ),
    "an order that is none": of_log(
        "by_log", "by_time", "interactions.order: 'by_time' is not allo"
    ),
    "logged negatives without positives": of_log(
        "positives: click == 1", "negatives: logged", "interactions: negatives: logged needs a pred"
    ),
    "a history without time": of_log("  time: time\n", "", "interactions: a history needs 'time'"),
    "shares of all": schema(
        "users:",
        "split: {kind: random, validation: 0.5, test: 0.5}\nusers:",
        "split: validation 0.5 and test 0.5 leave nothing",
    ),
    "a share in percent": schema(
        "users:", "split: {kind: random, test: 10}\nusers:", "split.test: 10 is not allowed; it sho"
    ),
    "a share of nothing": schema(
        "users:",
        "split: {kind: time, test: 0}\nusers:",
        "split.test: 0 is not allowed; it should b",
    ),
    "a split that is none": schema(
        "users:", "split: rand\nusers:", "split: 'rand' is not allowed; it"
    ),
    "a template with a format": schema(
        "{year}", "{year:4}", "items.text: template '{title} ({year:4"
    ),
    "a template that is open": schema(
        "{year}", "{year", "items.text: template '{title} ({year). {"
    ),
    "a template without a place": schema(
        "{title} ({year}). {genres}", "t", "items.text: the templ"
    ),
    "a template of no name": schema(
        "{year}", "{}", "items.text: template '{title} ({}). {genres}'"
    ),
    "a wrong key of reviews": of_log(
        "most: 2", "moust: 2", "items.text.said.moust: there is no such key; did you mean 'most'?"
    ),
    "a name with a dot": schema("{title:", "{a.b:", "items.text: the name 'a.b' holds a '.'"),
}
CORPORA = {
    "an empty corpus": corpus(written("corpus.txt", ""), told="corpus.txt: is empty"),
    "a corpus of blanks": corpus(
        written("corpus.txt", " \n\n"), told="corpus: all rows are empty; texts are needed"
    ),
    "no corpus": corpus(removed("corpus.txt"), told="has neither of corpus.parquet and corpus.csv"),
    "a corpus in Latin-1": corpus(
        written("corpus.txt", b"W\xf6rter\n"), told="corpus.txt: cannot be read as txt: 'utf-8'"
    ),
    "a corpus without the column": corpus(
        replaced(SCHEMA, "{text}", "{body}"), told="corpus.txt: no column 'body'; it has text"
    ),
}
BROKEN = FILES | FORMS | SCHEMAS | CORPORA


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_told_and_nothing_is_written(
    broken: Broken, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert_told(broken, tmp_path / "data", capfd)
