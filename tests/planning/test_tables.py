"""Tables as numbers, from a file or a preset."""

from pathlib import Path

import pytest

from flm_torchrec.errors import UserError
from flm_torchrec.planning.tables import PRESETS, Table, preset, read_tables, scaled, table_bytes


def written(folder: Path, text: str) -> Path:
    file = folder / "tables.yaml"
    file.write_text(text)
    return file


def test_a_file_names_each_table_with_its_rows_width_and_features(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "tables:\n  items: {rows: 1_000, dim: 8, pooling: 2.5, features: [clicked, bought]}\n"
        "  users: {rows: 10, dim: 4, dtype: fp16, weighted: true}\n",
    )
    items, users = read_tables(file)
    clicked = ("clicked", "bought")
    assert items == Table(name="items", rows=1000, dim=8, pooling=2.5, features=clicked)
    assert users.feature_names == ("users",)
    assert table_bytes([items, users]) == 4 * 8000 + 2 * 40


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tables: {a: {rows: 0, dim: 4}}", ["tables.a.rows", "0"]),
        ("tables: {a: {rows: 4, dim: 0}}", ["tables.a.dim", "0"]),
        ("tables: {a: {rows: 4, dim: 4, pooling: 0}}", ["tables.a.pooling", "0"]),
        ("tables: {a: {rows: 4, dim: 4, pooling: .inf}}", ["tables.a.pooling", "inf"]),
        ("tables: {a: {rows: 9223372036854775808, dim: 4}}", ["tables.a.rows", "9223372"]),
        ('tables: {"": {rows: 4, dim: 4}}', ["tables", "1 character"]),
        ("tables: {a: {row: 4, dim: 4}}", ["tables.a.row", "rows"]),
        ("tables: {}", ["tables"]),
        (
            "tables: {a: {rows: 4, dim: 4, features: [f]}, b: {rows: 4, dim: 4, features: [f]}}",
            ["feature 'f'", "a, b", "each feature once"],
        ),
        (
            "tables: {a: {rows: 4, dim: 4, features: [f, f]}}",
            ["feature 'f'", "each feature once"],
        ),
    ],
)
def test_tables_that_can_not_be_are_told_by_file_and_key(
    text: str, told: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        read_tables(written(tmp_path, text))
    assert [part for part in [*told, "tables.yaml"] if part not in str(caught.value)] == []


def test_the_longest_tables_are_cut_to_fit_and_the_others_stay() -> None:
    tables = [Table(name=str(rows), rows=rows, dim=1) for rows in (10, 1_000, 5_000)]
    assert [table.rows for table in scaled(tables, most_bytes=4 * 6_010)] == [10, 1_000, 5_000]
    assert [table.rows for table in scaled(tables, most_bytes=4 * 3_010)] == [10, 1_000, 2_000]
    assert [table.rows for table in scaled(tables, most_bytes=4 * 211)] == [10, 100, 100]
    with pytest.raises(UserError, match="a row of each takes 12 bytes; allowed: 8"):
        scaled(tables, most_bytes=8)


def test_presets_have_the_sizes_that_are_published() -> None:
    assert len(PRESETS["criteo-small"]) == len(PRESETS["dlrm-v2"]) == 26
    assert sum(table.rows for table in preset("dlrm-v2")) == 204_184_588
    assert sum(table.pooling for table in preset("dlrm-v2")) == 214
    with pytest.raises(UserError, match="preset: 'dlrm' is not one of criteo-small, dlrm-v2, "):
        preset("dlrm")
