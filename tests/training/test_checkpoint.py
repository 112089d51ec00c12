import json
from pathlib import Path

import pytest
import torch
from torch import nn
from two_ranks.pool import Ranks
from two_ranks.toy import ROWS, Toy, make, run
from two_ranks.whole import whole_state

from flm_torchrec.errors import UserError
from flm_torchrec.training import checkpoint
from flm_torchrec.training.optimizers import scale_dense_lr
from flm_torchrec.training.runtime import Runtime


def saved(alone: Runtime, folder: Path, *, step: int = 3, model: nn.Module | None = None) -> Path:
    """A checkpoint after two steps of training."""
    dmp, optimizer = make(alone, model=model)
    run(alone, dmp, optimizer, steps=2)
    checkpoint.save(folder, step, dmp, optimizer, keep=9, meta={"fingerprint": "abc"})
    path = checkpoint.latest(folder)
    assert path is not None
    return path


def test_a_checkpoint_brings_back_model_and_optimizers_exactly(
    alone: Runtime, tmp_path: Path
) -> None:
    dmp, optimizer = make(alone)
    run(alone, dmp, optimizer, steps=3)
    expected = whole_state(dmp, optimizer)
    checkpoint.save(tmp_path, 3, dmp, optimizer, keep=1, meta={"fingerprint": "abc"})
    assert whole_state(dmp, optimizer) == expected

    dmp, optimizer = make(alone)
    assert whole_state(dmp, optimizer) != expected
    meta = checkpoint.load(tmp_path / "step-00000003", dmp, optimizer)
    assert meta == {"fingerprint": "abc", "step": 3}
    assert whole_state(dmp, optimizer) == expected
    # Model, a row-wise state a table, and AdamW's three a dense parameter of either group.
    assert len(expected) == (3 + 5 + 1) + 3 + 3 * 5


def test_resuming_is_bit_equal_to_not_stopping(alone: Runtime, tmp_path: Path) -> None:
    dmp, optimizer = make(alone, dropout=0.3)
    losses = run(alone, dmp, optimizer, steps=9)
    expected = whole_state(dmp, optimizer)

    dmp, optimizer = make(alone, dropout=0.3)
    first = run(alone, dmp, optimizer, steps=4)
    checkpoint.save(tmp_path, 4, dmp, optimizer, keep=1, meta={})
    torch.rand(11)  # the generator's state isn't in a checkpoint
    dmp, optimizer = make(alone, dropout=0.3)
    path = checkpoint.latest(tmp_path)
    assert path is not None
    start = checkpoint.load(path, dmp, optimizer)["step"]
    assert first + run(alone, dmp, optimizer, start=start, steps=9) == losses
    assert whole_state(dmp, optimizer) == expected


def test_saving_before_the_first_step_changes_nothing(alone: Runtime, tmp_path: Path) -> None:
    expected = run(alone, *make(alone), steps=5)
    dmp, optimizer = make(alone)
    before = {name: value.clone() for name, value in dmp.named_parameters()}
    scale_dense_lr(optimizer, 0.5)
    checkpoint.save(tmp_path, 0, dmp, optimizer, keep=1, meta={})
    for name, value in dmp.named_parameters():
        assert torch.equal(value, before[name]), name
    scale_dense_lr(optimizer, 1.0)
    assert run(alone, dmp, optimizer, steps=5) == expected


def test_the_last_k_are_kept(alone: Runtime, tmp_path: Path) -> None:
    dmp, optimizer = make(alone)
    for step in (1, 2, 10, 11):
        checkpoint.save(tmp_path, step, dmp, optimizer, keep=2, meta={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000011"


def test_a_step_can_be_saved_again(alone: Runtime, tmp_path: Path) -> None:
    saved(alone, tmp_path, step=3)
    dmp, optimizer = make(alone)
    checkpoint.save(tmp_path, 3, dmp, optimizer, keep=1, meta={"fingerprint": "new"})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    assert checkpoint.load(tmp_path / "step-00000003", dmp, optimizer)["fingerprint"] == "new"


def test_a_folder_of_a_longer_run_is_refused(alone: Runtime, tmp_path: Path) -> None:
    saved(alone, tmp_path, step=8)
    dmp, optimizer = make(alone)
    with pytest.raises(UserError, match="step-00000008, of a run that went further than step 3"):
        checkpoint.save(tmp_path, 3, dmp, optimizer, keep=1, meta={})


def test_a_crash_before_the_marker_leaves_the_previous_one(alone: Runtime, tmp_path: Path) -> None:
    previous = saved(alone, tmp_path, step=3)
    dmp, optimizer = make(alone)
    with pytest.raises(TypeError):  # the marker can't be written
        checkpoint.save(tmp_path, 4, dmp, optimizer, keep=1, meta={"not JSON": object()})
    assert checkpoint.latest(tmp_path) == previous
    checkpoint.load(previous, dmp, optimizer)
    checkpoint.save(tmp_path, 5, dmp, optimizer, keep=9, meta={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000005"]


def test_a_folder_without_a_marker_is_no_checkpoint(alone: Runtime, tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nowhere") is None
    path = saved(alone, tmp_path, step=3)
    (path / "meta.json").unlink()
    assert checkpoint.latest(tmp_path) is None
    with pytest.raises(UserError, match=r"step-00000003: holds no meta\.json"):
        checkpoint.load(path, *make(alone))


def test_another_schema_is_refused(alone: Runtime, tmp_path: Path) -> None:
    path = saved(alone, tmp_path)
    marker = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(marker | {"schema": 99}))
    with pytest.raises(UserError, match="schema version 99; allowed: 1"):
        checkpoint.load(path, *make(alone))
    with pytest.raises(UserError, match="schema version 99; allowed: 1"):
        checkpoint.load_matching(path, make(alone)[0])


def test_missing_and_unexpected_entries_are_named_and_nothing_is_loaded(
    alone: Runtime, tmp_path: Path
) -> None:
    path = saved(alone, tmp_path)
    model = Toy()
    model.users.dense[0] = nn.Linear(16, 8, bias=False)
    model.users.extra = nn.Parameter(torch.zeros(2))
    dmp, optimizer = make(alone, model=model)
    before = whole_state(dmp, optimizer)
    with pytest.raises(UserError) as told:
        checkpoint.load(path, dmp, optimizer)
    assert whole_state(dmp, optimizer) == before
    assert "lacks 4 entries of the model, first model.users.extra" in str(told.value)
    assert "holds 4 that the model lacks, first model.users.dense.0.bias" in str(told.value)


def test_another_shape_is_named(
    alone: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(alone, tmp_path)
    monkeypatch.setitem(ROWS, "item", 31)
    dmp, optimizer = make(alone)
    before = whole_state(dmp, optimizer)
    with pytest.raises(UserError, match=r"item\.weight of shape \[30, 8\], the model's is \[31, 8"):
        checkpoint.load(path, dmp, optimizer)
    assert whole_state(dmp, optimizer) == before


def test_a_damaged_file_is_told(alone: Runtime, tmp_path: Path) -> None:
    path = saved(alone, tmp_path)
    for file in path.glob("*.distcp"):
        file.unlink()
    with pytest.raises(UserError, match=r"step-00000003: __0_0\.distcp is missing"):
        checkpoint.load(path, *make(alone))


class Wider(nn.Module):
    """A model of a later stage: the same parts, and a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.toy = Toy()
        self.users, self.items, self.losses = self.toy.users, self.toy.items, self.toy.losses
        del self.toy
        self.head = nn.Linear(8, 1)


def test_matching_parameters_are_loaded_and_the_others_named(
    alone: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dmp, optimizer = make(alone)
    run(alone, dmp, optimizer, steps=2)
    checkpoint.save(tmp_path, 2, dmp, optimizer, keep=1, meta={})
    trained = whole_state(dmp, optimizer)

    monkeypatch.setitem(ROWS, "item", 31)
    dmp, optimizer = make(alone, model=Wider())
    before = whole_state(dmp, optimizer)
    matched = checkpoint.load_matching(tmp_path / "step-00000002", dmp)
    assert matched.fresh == ["head.bias", "head.weight", "items.ebc.embedding_bags.item.weight"]
    assert "users.ebc.embedding_bags.user.weight" in matched.loaded
    assert "losses.scale" not in matched.loaded  # a buffer
    after = whole_state(dmp, optimizer)
    for name in matched.loaded:
        assert after[f"model.{name}"] == trained[f"model.{name}"]
    for name in matched.fresh:
        assert after[f"model.{name}"] == before[f"model.{name}"]


def test_a_checkpoint_of_nothing_in_common_is_refused(alone: Runtime, tmp_path: Path) -> None:
    path = saved(alone, tmp_path)
    dmp, _ = make(alone, model=nn.Sequential(Toy()))
    with pytest.raises(UserError, match="no trainable parameter of the model is in it"):
        checkpoint.load_matching(path, dmp)
    with pytest.raises(UserError, match=r"nowhere: holds no meta\.json"):
        checkpoint.load_matching(tmp_path / "nowhere", dmp)


def save_trained(runtime: Runtime, folder: Path, sharding: str) -> dict[str, object]:
    dmp, optimizer = make(runtime, sharding)
    run(runtime, dmp, optimizer, steps=3)
    checkpoint.save(folder, 3, dmp, optimizer, keep=1, meta={})
    return whole_state(dmp, optimizer)


@pytest.mark.parametrize("other", ["table_wise", "row_wise"])
@pytest.mark.parametrize("sharding", ["table_wise", "row_wise"])
def test_what_two_ranks_save_one_rank_loads(
    sharding: str, other: str, alone: Runtime, ranks: Ranks, tmp_path: Path
) -> None:
    first, second = ranks.run(save_trained, tmp_path, sharding)
    assert first == second
    dmp, optimizer = make(alone, other)
    checkpoint.load(tmp_path / "step-00000003", dmp, optimizer)
    assert whole_state(dmp, optimizer) == first
    dmp, optimizer = make(alone, other)
    matched = checkpoint.load_matching(tmp_path / "step-00000003", dmp)
    assert (len(matched.loaded), matched.fresh) == (8, [])


def matched_of(runtime: Runtime, path: Path) -> tuple[checkpoint.Matched, dict[str, object]]:
    dmp, optimizer = make(runtime, "table_wise")
    matched = checkpoint.load_matching(path, dmp)
    return matched, whole_state(dmp, optimizer)


def test_tables_of_another_rank_match_too(alone: Runtime, ranks: Ranks, tmp_path: Path) -> None:
    expected = save_trained(alone, tmp_path, "row_wise")
    (first, state), (second, _) = ranks.run(matched_of, tmp_path / "step-00000003")
    assert first == second
    assert (len(first.loaded), first.fresh) == (8, [])
    for name in first.loaded:
        assert state[f"model.{name}"] == expected[f"model.{name}"]


def grown_state(
    runtime: Runtime, path: Path, sharding: str, rows: int
) -> tuple[list[str], dict[str, object]]:
    ROWS["item"], usual = rows, ROWS["item"]
    try:
        dmp, optimizer = make(runtime, sharding)
        matched = checkpoint.load_matching(path, dmp, grown=True)
        return matched.fresh, whole_state(dmp, optimizer)
    finally:
        ROWS["item"] = usual


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "column_wise", "data_parallel"])
def test_a_table_that_has_grown_keeps_its_rows(
    sharding: str, alone: Runtime, ranks: Ranks, tmp_path: Path
) -> None:
    expected = save_trained(alone, tmp_path, "table_wise")
    name = "model.items.ebc.embedding_bags.item.weight"
    (fresh, state), (_, other) = ranks.run(grown_state, tmp_path / "step-00000003", sharding, 37)
    assert fresh == []
    assert state == other
    assert len(state[name]) == 37
    assert state[name][:30] == expected[name]
    assert (
        state["model.users.ebc.embedding_bags.user.weight"]
        == (expected["model.users.ebc.embedding_bags.user.weight"])
    )
