import json

import pytest

from flm_torchrec.errors import UserError
from flm_torchrec.planning.calibration import (
    Calibration,
    Line,
    far_share,
    read_calibration,
    write_calibration,
)
from flm_torchrec.planning.fit import median_error, nonnegative, rank_correlation

KNOWN = Calibration(
    created="2026-01-01",
    machine={"cores": 2},
    versions={"torch": "2"},
    device="cpu",
    world_size=2,
    local_world_size=2,
    copy_bandwidth=1e10,
    lookup=Line(fixed_ms=1.0, id_ms=0.5),
    update=Line(fixed_ms=2.0, byte_ms=0.25),
    dense_update=Line(),
    collectives={"all_to_all": Line(fixed_ms=0.5, byte_ms=0.125)},
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "calibration.json"
    write_calibration(path, KNOWN)
    return path


def changed(file, **values):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **values}))
    return file


def test_what_was_written_is_read(file):
    assert read_calibration(file) == KNOWN


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no such file; measure again with: flm plan cal"):
        read_calibration(tmp_path / "none.json")


def test_another_format_and_another_version_are_refused(file):
    with pytest.raises(UserError, match="is no calibration"):
        read_calibration(changed(file, format="other"))
    with pytest.raises(UserError, match="version 1; allowed: 2"):
        read_calibration(changed(file, format="flm-calibration", version=1))


def test_changed_content_is_told_by_its_checksum(file):
    with pytest.raises(UserError, match="its checksum differs"):
        read_calibration(changed(file, copy_bandwidth=2e10))


def test_a_flipped_byte_is_told(file):
    content = bytearray(file.read_bytes())
    content[content.index(b"1.0")] ^= 2
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"checksum differs|is not JSON"):
        read_calibration(file)


def test_half_a_file_and_a_list_are_refused(file):
    file.write_text(file.read_text()[:100])
    with pytest.raises(UserError, match="is not JSON"):
        read_calibration(file)
    file.write_text("[1]")
    with pytest.raises(UserError, match="is no calibration"):
        read_calibration(file)


def test_a_value_that_is_not_allowed_is_named(tmp_path):
    wrong = KNOWN.model_copy(update={"world_size": 0})
    write_calibration(tmp_path / "c.json", wrong)
    with pytest.raises(UserError, match="world_size: Input should be greater than 0"):
        read_calibration(tmp_path / "c.json")


def test_a_line_adds_its_parts():
    line = Line(fixed_ms=1, id_ms=2, far_id_ms=4, byte_ms=8, far_byte_ms=16)
    assert line.ms(ids=1, size=1, table=0) == 11
    assert line.ms(ids=1, size=1, table=2**40) == 31


def test_rows_are_far_where_a_table_is_larger_than_caches():
    assert [far_share(size) for size in (0, 2**20, 2**24, 2**28, 2**40)] == [0, 0, 0.5, 1, 1]


def test_planted_weights_are_found():
    features = [[1.0, 1.0], [1.0, 1e6], [1.0, 2e6]]
    fixed, slope = nonnegative(features, [0.5 + 1e-6 * size for _, size in features])
    assert fixed == pytest.approx(0.5)
    assert slope == pytest.approx(1e-6)


def test_no_weight_is_negative():
    # A line that falls: the best without negative parts is flat.
    fixed, slope = nonnegative([[1.0, 1.0], [1.0, 2.0]], [2.0, 1.0])
    assert slope == 0
    assert fixed == pytest.approx(1.2)  # least (f/2 - 1)^2 + (f - 1)^2


def test_errors_are_relative_and_ranks_are_shared():
    assert median_error([1.0, 3.0, 4.0], [2.0, 2.0, 4.0]) == 0.5
    assert rank_correlation([1, 2, 3], [10, 20, 90]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1.5, 1.5, 3 against 1, 2, 3.
    assert rank_correlation([5, 5, 6], [1, 2, 3]) == pytest.approx(0.75**0.5)
    assert rank_correlation([1, 1], [1, 2]) == 0
