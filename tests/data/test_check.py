import pytest
from small_data import SMALL, files_of, write_folder

from flm_torchrec.data.checking.check import check
from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError


def facts(folder, table="interactions"):
    return check(folder).tables[table].facts


def test_the_facts_of_the_small_data(tmp_path):
    report = check(write_folder(tmp_path))
    assert report.problems == report.warnings == []
    assert report.tables["users"].facts == [
        "rows: 4",
        "distinct values: user_id 4, job 3",
        "missing values: age 1 (25.00%)",
    ]
    assert report.tables["interactions"].facts == [
        "rows: 9",
        "missing values: rating 1 (11.11%)",
        "distinct users: 3",
        "distinct items: 5",
        "interactions a user: min 2, median 3, max 4",
        "filled: 60.000% of the matrix of users and items",
        "rows that repeat a user and item: 0 (0.00%)",
        "rows that repeat a user, item and time: 0 (0.00%)",
        "time: 1970-01-01 00:00:01 to 1970-01-01 00:00:06",
        "rows that tie in time with another of the user: 2 (22.22%)",
        "split leave_one_out: train 5, validation 2, test 2",
        "label like: 1 in 62.500%, missing in 1 (11.11%)",
        "label rating: 1: 1; 2: 1; 3: 1; 4: 3; 5: 2, missing in 1 (11.11%)",
        "users without interactions: 1 (25.00%)",
        "items without interactions: 1 (16.67%)",
    ]


def test_the_text_ends_with_problems_and_warnings(tmp_path):
    text = check(write_folder(tmp_path)).text()
    assert text.startswith("users\n  rows: 4\n")
    assert text.endswith("\n0 problems\n0 warnings")


def test_nothing_is_written(tmp_path):
    folder = write_folder(tmp_path)
    before = files_of(folder)
    check(folder)
    assert files_of(folder) == before


def test_without_a_schema_it_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match=r"`flm data infer .*` proposes one"):
        check(tmp_path)


def test_columns_that_the_schema_does_not_use_are_told(tmp_path):
    folder = write_folder(tmp_path, {"schema.yaml": (", job: categorical", "")})
    assert "columns that the schema does not use: job" in facts(folder, "users")


def test_repeated_rows_are_counted(tmp_path):
    folder = write_folder(
        tmp_path,
        {
            "interactions.csv": ("u2,i2,1,5\n", "u2,i2,1,5\nu2,i2,1,5\nu2,i2,1,7\n"),
            "schema.yaml": ("  repeats: false\n", ""),
        },
    )
    assert "rows that repeat a user and item: 2 (18.18%)" in facts(folder)
    assert "rows that repeat a user, item and time: 1 (9.09%)" in facts(folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("interactions.csv", "u1,i1,5,1", "u1,i1,x,1", "data row 2, column 'rating': 'x'"),
        ("interactions.csv", "u1,i1,5,1", "u1,i1,5,", "data row 2, column 'time': is empty"),
        ("interactions.csv", "u1,i1,5,1", ",i1,5,1", "data row 2, column 'user': is empty"),
        ("interactions.csv", "u1,i1,5,1", "u1,i1,5", "data row 2: 3 values"),
        ("interactions.csv", "user,item", "who,item", "no column 'user'"),
        ("interactions.csv", "u1,i1,5,1", "u1,i9,5,1", "data row 2, column 'item': i9"),
        ("interactions.csv", "u1,i1,5,1", "u1,i2,5,1", "met this item in data row 2 already"),
        ("items.csv", "i2,Two", "i1,Two", "data row 2, column 'item_id': id i1"),
        ("items.csv", "i2,Two,2000", "i2,Two,abc", "data row 2, column 'year': 'abc'"),
        ("items.csv", "title,year", "name,year", "no column 'title'"),
        ("users.csv", "u2,30,nurse", ",30,nurse", "data row 2, column 'user_id': is empty"),
    ],
)
def test_a_problem_is_told_by_file_row_and_column(tmp_path, file, old, new, problem):
    problems = check(write_folder(tmp_path, {file: (old, new)})).problems
    assert any(file in line and problem in line for line in problems), problems


def test_all_problems_are_told_at_once(tmp_path):
    folder = write_folder(
        tmp_path,
        {
            "users.csv": ("u2,30,nurse", "u2,old,nurse"),
            "items.csv": ("i2,Two,2000", "i2,Two,abc"),
            "interactions.csv": ("u1,i1,5,1", "u1,i9,x,y"),
        },
    )
    problems = check(folder).problems
    columns = ["'age'", "'year'", "'rating'", "'time'", "'item'"]
    assert all(any(column in line for line in problems) for column in columns), problems


def test_a_problem_counts_the_rows_that_have_it(tmp_path):
    folder = write_folder(tmp_path, {"interactions.csv": ("u1,i1,5,1\nu1,i2", "u1,,5,1\nu1,")})
    (problem,) = check(folder).problems
    assert problem.endswith(
        "data row 2, column 'item': is empty; an id is needed; so is 1 more row"
    )


def write_parts(folder, second):
    """The small data with its interactions in two parts, the second one given."""
    write_folder(folder)
    lines = (folder / "interactions.csv").read_text().splitlines(keepends=True)
    (folder / "interactions.csv").unlink()
    (folder / "interactions").mkdir()
    (folder / "interactions" / "0.csv").write_text("".join(lines[:5]))
    (folder / "interactions" / "1.csv").write_text(second)
    return folder


def test_rows_count_within_their_part(tmp_path):
    second = "user,item,rating,time\nu1,i3,4,3\nu1,i4,x,3\nu1,i2,5,9\n"
    problems = check(write_parts(tmp_path, second)).problems
    assert len(problems) == 2
    assert "1.csv: data row 2, column 'rating': 'x' is not a number" in problems[0]
    assert (
        "1.csv: data row 3, column 'item': this user met this item in data row 3 of"
        in (problems[1])
    )


def test_parts_with_different_columns_are_a_problem(tmp_path):
    (problem,) = check(write_parts(tmp_path, "user,item,time\nu1,i3,3\n")).problems
    assert "1.csv: column 'rating' is missing" in problem


def test_bad_rows_that_the_schema_skips_are_warnings(tmp_path):
    folder = write_folder(
        tmp_path,
        {
            "interactions.csv": ("u1,i1,5,1", "u1,i1,x,1"),
            "schema.yaml": ("users:", "on_bad_rows: skip\nusers:"),
        },
    )
    report = check(folder)
    assert report.problems == []
    assert any("on_bad_rows: skip" in line for line in report.warnings)


def test_columns_that_are_named_alike_are_warned_of(tmp_path):
    folder = write_folder(tmp_path, {"items.csv": ("title,year,", "title,Title,")})
    assert any("'title' and 'Title' have nearly" in line for line in check(folder).warnings)


def test_a_corpus_is_read_by_its_template(tmp_path):
    (tmp_path / "corpus.txt").write_text("One text.\n\nAnother text.\n")
    (tmp_path / "schema.yaml").write_text('corpus: "{text}"\n')
    assert facts(tmp_path, "corpus") == ["rows: 3", "missing values: text 1 (33.33%)"]
    (tmp_path / "schema.yaml").write_text('corpus: "{title}"\n')
    (problem,) = check(tmp_path).problems
    assert "corpus.txt: no column 'title'" in problem


def problem_of_both(folder) -> str:
    """What `check` tells, and `prepare` too."""
    (problem,) = check(folder).problems
    with pytest.raises(UserError) as raised:
        prepare(folder)
    assert str(raised.value) == problem
    return problem


def test_a_split_file_that_does_not_fit_is_a_problem(tmp_path):
    folder = write_folder(tmp_path)
    prepare(folder)
    assert "split leave_one_out: train 5, validation 2, test 2" in facts(folder)
    path, more = folder / "interactions.csv", "u4,i1,1,9\n"
    path.write_text(SMALL["interactions.csv"] + more)
    assert "it has 9 rows, the interactions 10" in problem_of_both(folder)
    path.write_text(SMALL["interactions.csv"].replace("u1,i2,3,2\n", more))
    (problem,) = check(folder).problems
    assert "row 3, column 'user_id': u1, but the interaction has another" in problem


@pytest.mark.parametrize("kind", ["item_cold", "random"])
def test_a_split_with_too_little_to_draw_from_is_a_problem(tmp_path, kind):
    rows = "".join(f"u{n},i{n % 2},{n}\n" for n in range(2))
    schema = f"interactions: {{user: user, item: item, time: time}}\nsplit: {kind}\n"
    files = {"interactions.csv": f"user,item,time\n{rows}", "schema.yaml": schema}
    problem = problem_of_both(write_folder(tmp_path, files=files))
    assert f"split: {kind} of 2 interactions leaves none for train" in problem


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("users:", "grow_from: ../none\nusers:", "there is no folder .*none"),
        (
            "job: categorical",
            "age__2: categorical, age: {kind: categorical, hash: {rows: 9, ways: 2}}",
            "users.features: two features are called 'age__2'",
        ),
    ],
)
def test_what_the_schema_asks_for_in_vain_is_told(tmp_path, old, new, message):
    schema = SMALL["schema.yaml"].replace("age: {kind: numeric, buckets: 2}, ", "")
    folder = write_folder(tmp_path, files=SMALL | {"schema.yaml": schema.replace(old, new)})
    for verb in (check, prepare):
        with pytest.raises(UserError, match=message):
            verb(folder)


def test_bad_rows_are_a_problem_where_they_are_more_than_half(tmp_path):
    schema = SMALL["schema.yaml"].replace("users:", "on_bad_rows: skip\nusers:", 1)
    log = SMALL["interactions.csv"].replace("u1,", "u9,").replace("u3,i1,4", "u3,i1,x")
    folder = write_folder(tmp_path, files=SMALL | {"schema.yaml": schema, "interactions.csv": log})
    # In the rows that are left nobody liked anything less.
    assert check(folder).problems == [
        "interactions: 5 (55.56%) of the data rows cannot be used, more than half",
        "interactions: the label 'like' is 1 in all training rows",
        "interactions: the label 'rating' is 4 in all training rows",
    ]
    with pytest.raises(UserError, match="5 of 9 data rows cannot be used, more than half"):
        prepare(folder)


def test_days_that_are_read_as_seconds_are_warned_of(tmp_path):
    log = SMALL["interactions.csv"].splitlines()
    log[1:] = [f"{line[:-1]}202402{20 + int(line[-1])}" for line in log[1:]]
    folder = write_folder(tmp_path, files=SMALL | {"interactions.csv": "\n".join(log)})
    (warning,) = check(folder).warnings
    assert "column 'time': numbers such as 20240225 look like dates" in warning
