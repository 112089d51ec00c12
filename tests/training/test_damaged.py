from pathlib import Path

import pytest
from two_ranks.pool import Ranks
from two_ranks.toy import make

from flm_torchrec.errors import UserError
from flm_torchrec.training import checkpoint
from flm_torchrec.training.markers import damage, digest, written
from flm_torchrec.training.runtime import Runtime


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def save_two(runtime: Runtime, folder: Path) -> None:
    dmp, optimizer = make(runtime, "row_wise")
    for step in (1, 2):
        checkpoint.save(folder, step, dmp, optimizer, keep=2, meta={})


def found(runtime: Runtime, folder: Path) -> tuple[Path | None, list[str], str]:
    """What is the newest good one, and what loading the last says."""
    with pytest.raises(UserError) as told:
        checkpoint.load(folder / "step-00000002", *make(runtime, "row_wise"))
    return *checkpoint.newest_good(folder), str(told.value)


@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp", ".metadata"])
def test_every_rank_knows_of_a_flipped_bit_in_any_file(
    name: str, ranks: Ranks, tmp_path: Path
) -> None:
    ranks.run(save_two, tmp_path)
    flip(tmp_path / "step-00000002" / name)
    wrong = f"checkpoint {tmp_path / 'step-00000002'}: {name} is damaged: its SHA-256"
    for good, damaged, told in ranks.run(found, tmp_path):
        assert good == tmp_path / "step-00000001"
        assert len(damaged) == 1
        assert damaged[0].startswith(wrong)
        assert told.startswith(wrong)


def test_checksums_are_those_of_what_is_on_the_disk(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(save_two, tmp_path)
    path = tmp_path / "step-00000002"
    files = written(path)
    assert sorted([*files, "meta.json"]) == sorted(file.name for file in path.iterdir())
    for name, known in files.items():
        assert known["sha256"] == digest(path / name)
    assert damage(path) is None


@pytest.mark.parametrize(
    ("content", "told"), [(b"{", "no marker"), (b"\xff", "no marker"), (b"[]", "no marker")]
)
def test_a_marker_that_is_none_is_damage(
    content: bytes, told: str, alone: Runtime, tmp_path: Path
) -> None:
    save_two(alone, tmp_path)
    path = tmp_path / "step-00000002"
    (path / "meta.json").write_bytes(content)
    assert told in str(damage(path))
    with pytest.raises(UserError, match=r"meta\.json is damaged"):
        checkpoint.load(path, *make(alone, "row_wise"))
    assert checkpoint.newest_good(tmp_path)[0] == tmp_path / "step-00000001"
