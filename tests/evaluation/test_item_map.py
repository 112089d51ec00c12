"""Items on a plane: principal components by hand, groups, and the file."""

import json

import torch

from flm_torchrec.evaluation.item_map import item_map, plane, read_item_map, write_item_map

EVERY = torch.ones(4, dtype=torch.bool)
CROSS = torch.tensor([[3.0, 0, 0], [-1, 0, 0], [0, 0, 2], [0, 0, -1]])


def made(values, *, titles="abcd", present=EVERY):
    return item_map({"title": (CROSS, present)}, list(titles), values, grouped_by="genre")


def test_the_plane_is_that_of_the_two_widest_directions_of_rows_of_unit_length():
    rows = torch.tensor([[2.0, 0, 0], [-2, 0, 0], [0, 3.0, 0], [0, -1, 0], [0, 0, 0]])
    points = plane(rows)
    assert points.shape == (5, 2)
    torch.testing.assert_close(points.norm(dim=1), torch.tensor([1.0, 1, 1, 1, 0]).double())
    wide = torch.tensor([[1.0, 0.1, 0], [1, -0.1, 0], [-1, 0.1, 0], [-1, -0.1, 0]])
    expected = wide[:, :2] / wide[:, :2].norm(dim=1, keepdim=True)
    torch.testing.assert_close(plane(wide), expected.double())


def test_the_same_rows_give_the_same_map():
    rows = torch.randn(50, 8)
    assert torch.equal(plane(rows), plane(rows.clone()))


def test_rows_of_one_entry_and_one_row_have_a_place():
    torch.testing.assert_close(plane(torch.tensor([[1.0], [-1.0]]))[:, 1], torch.zeros(2).double())
    assert plane(torch.randn(1, 8)).tolist() == [[0, 0]]
    assert plane(torch.zeros(0, 8)).shape == (0, 2)


def test_an_item_is_of_the_first_of_its_values_that_is_frequent():
    values = [["rare", "drama"], ["comedy", "drama"], ["drama"], []]
    found = made(values)
    assert found.groups == ["drama", "comedy", "rare"]
    assert found.group == [2, 1, 0, None]
    many = made([[f"v{number}" for number in range(9)], ["v8"], ["v8", "v7"], ["v6"]])
    assert many.groups == ["v8", "v6", "v7", "v0", "v1", "v2"]
    assert many.group == [3, 0, 0, 1]


def test_an_item_without_a_view_has_no_place_on_its_map():
    found = made([[]] * 4, present=torch.tensor([True, True, False, True]))
    assert [point is None for point in found.points["title"]] == [False, False, True, False]


def test_long_titles_are_cut():
    found = made([[]] * 4, titles=["a" * 60, "b" * 61, "short", ""])
    assert found.titles == ["a" * 60, "b" * 59 + "…", "short", ""]


def test_a_map_that_was_written_is_read_again(tmp_path):
    found = made([["drama"], ["größer"], [], []])
    write_item_map(tmp_path / "map.json", found)
    again = read_item_map(tmp_path / "map.json")
    assert json.loads((tmp_path / "map.json").read_text())["groups"] == ["drama", "größer"]
    assert again.group == found.group
    assert [tuple(point) for point in again.points["title"] if point] == found.points["title"]
