"""Our runs as peers of the others, trained for a few steps."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from flm_apps.trained import load_run
from flm_benchmarks.ablation import FULL, ablated
from flm_benchmarks.folders import thinned, with_validation
from flm_benchmarks.ours import CONFIGS, LINEAR, Maker, best_items, variants_of
from flm_benchmarks.peers.measured import EARLIER, FAMILIES, measured
from flm_benchmarks.peers.split_log import TEST, TRAIN, VALIDATION, SplitLog, next_items
from flm_benchmarks.peers.splits import write_splits
from flm_benchmarks.peers.top_items import DEPTH
from flm_benchmarks.peers.units import OutOfTimeError, run_peer
from flm_benchmarks.runs import Runs
from flm_benchmarks.stages import ALONE, BOTH, TwoStages, compared
from small_data import SMALL, write_folder

from flm_torchrec.config import RunConfig
from flm_torchrec.data.prepare import prepare
from flm_torchrec.measure import quality
from flm_torchrec.training.runtime import start
from flm_torchrec.typed_yaml import load_yaml

USERS, ITEMS, EVENTS = 30, 12, 8
COMMON = """
data: {path: unused, users: 4, window: 6}
train: {steps: 3, checkpoint_every: 3}
"""
RANKING = COMMON + "views: {width: 8, history: {layers: 1}, linear: {}}\ntasks: {rank: {}}\n"
HEADS = COMMON + "views: {width: 8, history: {layers: 1}}\ntasks: {heads: {hidden: 8, width: 8}}\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the users meet the first half of the items, and like it; ties in time are common."""
    rng, rows = np.random.default_rng(0), ["user,item,rating,time"]
    for user in range(USERS):
        for place, item in enumerate(rng.permutation(ITEMS)[:EVENTS]):
            rating = 5 if (item < ITEMS // 2) == (user % 2 == 0) else 2
            rows.append(f"u{user},i{item},{rating},{user + place // 2}")
    text = '  text: {title: "{title} ({year}). {genres}"}\n'
    files = {
        "users.csv": "user_id,age,job\n" + "".join(f"u{u},{20 + u},cook\n" for u in range(USERS)),
        "items.csv": "item_id,title,year,genres\n"
        + "".join(f"i{i},Film {i},{1990 + i},{'ab'[i % 2]}\n" for i in range(ITEMS)),
        "interactions.csv": "\n".join(rows) + "\n",
        "schema.yaml": SMALL["schema.yaml"].replace(text, ""),
    }
    return write_folder(tmp_path_factory.mktemp("ours") / "data", files=files)


def split(data: Path, name: str) -> tuple[Path, SplitLog]:
    """-> the folder to train on, the log of the peers"""
    file = write_splits(data, data.parent / "splits", [name])[name]
    return file.parent.parent, SplitLog.read(file)


def runs_of(folder: Path, config: str) -> Runs:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config)
    return Runs(config=folder / "config.yaml", folder=folder / "runs")


def answer_all(
    family: str, data: Path, log: SplitLog, runs: Runs, out: Path, *variants: str, **grid: list[Any]
) -> dict[str, dict[str, Any]]:
    peers = Maker(family=family, data=data, runs=runs).peers(variants)
    return {name: run_peer(name, peer, log, grid, out, quick=True) for name, peer in peers.items()}


@pytest.fixture(scope="module")
def ranked(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    folder, log = split(data, "last")
    out = tmp_path_factory.mktemp("ranked")
    runs = runs_of(out / "config", RANKING)
    told = answer_all("ranking", folder, log, runs, out, "flm", LINEAR)
    return {"folder": folder, "log": log, "out": out, "runs": runs, "told": told}


def test_lists_hold_nothing_known_and_all_else(ranked: Mapping[str, Any]) -> None:
    log, out = ranked["log"], ranked["out"]
    for family in ("ranking", EARLIER):
        found = measured(family, log, out)  # which refuses lists with what is known
        assert [row.peer for row in found] == ["flm", "linear"]
        for row in found:
            assert row.mean["hr@20"] == 1  # lists go on to the end of the catalogue
    with np.load(out / "flm.0.npz") as arrays:
        assert arrays["answer"].shape == (USERS + 1, DEPTH)
        assert ((arrays["answer"][1:] > 0).sum(1) == ITEMS - EVENTS + 1).all()


def test_strictly_earlier_history_changes_lists_but_not_what_is_in_them(
    ranked: Mapping[str, Any],
) -> None:
    for name in ("flm", LINEAR):
        with np.load(ranked["out"] / f"{name}.0.npz") as arrays:
            usual, earlier = arrays["answer"], arrays["earlier"]
        assert not np.array_equal(usual, earlier)
        assert np.array_equal(np.sort(usual[1:]), np.sort(earlier[1:]))


def test_lists_are_ranked_as_evaluation_ranks(ranked: Mapping[str, Any]) -> None:
    runs, folder = ranked["runs"], ranked["folder"]
    with start() as runtime:
        assembly = load_run(runs.trained(folder, {}, 0), runtime)
        expected = quality(assembly, part="test")
    found = {row.peer: row.mean for row in measured("ranking", ranked["log"], ranked["out"])}
    for name in ("ndcg@10", "hr@10", "coverage@20"):
        assert found["flm"][name] == pytest.approx(expected[name])


def test_what_was_answered_is_not_trained_again_unless_the_configuration_is_another(
    ranked: Mapping[str, Any], tmp_path: Path
) -> None:
    folder, log, out = ranked["folder"], ranked["log"], ranked["out"]
    elsewhere = runs_of(tmp_path, RANKING)  # the same, and nothing is trained there
    assert answer_all("ranking", folder, log, elsewhere, out, "flm") == {
        "flm": ranked["told"]["flm"]
    }
    assert not elsewhere.folder.exists()
    changed = runs_of(tmp_path, RANKING.replace("width: 8", "width: 16"))
    (peer,) = Maker(family="ranking", data=folder, runs=changed).peers(["flm"]).values()
    with pytest.raises(OutOfTimeError, match=r"flm,default and what follows it"):
        run_peer("flm", peer, log, {}, out, quick=True, until=0)


def test_candidates_alone_are_listed(ranked: Mapping[str, Any]) -> None:
    log = ranked["log"]
    search = next_items(log, TEST)
    search.candidates[:] = False
    search.candidates[[3, 5]] = True
    scores = torch.arange(log.num_items).float()
    top = best_items(lambda users: scores.repeat(len(users), 1), log, search)
    assert set(np.unique(top)) == {0, 3, 5}
    assert top[0, :3].tolist() == [5, 3, 0]


def test_cold_users_are_answered_at_each_count_by_the_same_runs(data: Path, tmp_path: Path) -> None:
    folder, log = split(data, "cold_users")
    runs = runs_of(tmp_path / "config", RANKING)
    told = answer_all(
        "cold_users", folder, log, runs, tmp_path / "out", "flm", **{"data.window": [4]}
    )
    assert list(told) == ["flm.0", "flm.1", "flm.3", "flm.5"]
    assert len(measured("cold_users", log, tmp_path / "out")) == 4
    assert len(list(runs.folder.iterdir())) == 2  # one for validation, one for the test


def test_predictions_come_in_the_order_of_the_log(data: Path, tmp_path: Path) -> None:
    folder, log = split(data, "random")
    runs = runs_of(tmp_path / "config", HEADS)
    answer_all("clicks", folder, log, runs, tmp_path, "flm")
    with start() as runtime:
        assembly = load_run(runs.trained(folder, {}, 0), runtime)
        expected = quality(assembly, part="test")
    (found,) = measured("clicks", log, tmp_path)
    assert found.mean["auc"] == pytest.approx(expected["auc_like"])
    assert found.mean["log_loss"] == pytest.approx(expected["log_loss_like"])
    answer_all("ratings", folder, log, runs, tmp_path / "ratings", "flm")
    (found,) = measured("ratings", log, tmp_path / "ratings")
    assert found.mean["rmse"] == pytest.approx(expected["rmse_rating"])


def test_a_copy_trains_on_validation_and_holds_out_the_same_test(data: Path) -> None:
    folder, log = split(data, "cold_items")
    copy = prepare(with_validation(folder)).interactions
    assert np.array_equal(copy.item, log.item)
    assert np.array_equal(copy.part == TEST, log.part == TEST)
    assert not (copy.part == VALIDATION).any()


def test_a_thinned_copy_holds_out_the_same(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    made = shutil.ignore_patterns("prepared", "splits", "interactions.csv")
    shutil.copytree(data, folder, ignore=made)
    rows = pd.read_csv(data / "interactions.csv")
    rows.to_parquet(folder / "interactions.parquet", index=False)
    whole, thin = (prepare(f) for f in (folder, thinned(folder, tmp_path / "thin", 0.3)))
    for part in (VALIDATION, TEST):
        ids = []
        for dataset in (whole, thin):
            log, items = dataset.interactions, dataset.items
            assert items is not None
            ids.append([items.ids[row] for row in log.item[log.part == part]])
        assert ids[0] == ids[1]
    before, after = (int((d.interactions.part == TRAIN).sum()) for d in (whole, thin))
    assert USERS <= after < before / 2


def test_an_ablation_tells_what_is_gained_without_a_part(
    ranked: Mapping[str, Any], tmp_path: Path
) -> None:
    folder, log, runs = ranked["folder"], ranked["log"], ranked["runs"]
    given: dict[str, Any] = {"parts": {"without": {}}, "seeds": [0]}
    records = ablated(runs, folder, log, **given, out=tmp_path, until=np.inf)
    assert [row["name"] for row in records] == [FULL, "without"]
    for figure in ("ndcg@10", "log_likelihood"):
        assert records[1][figure]["gain"] == 0
    assert records[0]["ndcg@10"]["mean"] == pytest.approx(
        ranked["told"]["flm"]["tried"][0]["validation"]
    )
    # About the same chance for each of the items that are left.
    left = np.log(ITEMS - EVENTS + 2)
    assert -2 * left < records[0]["log_likelihood"]["mean"] < 0
    assert ablated(runs, folder, log, **given, out=tmp_path, until=0) == records
    with pytest.raises(OutOfTimeError, match=r"full\.1"):
        ablated(runs, folder, log, **given | {"seeds": [0, 1]}, out=tmp_path, until=0)


def test_the_second_stage_starts_from_the_first_or_from_nothing(
    ranked: Mapping[str, Any], tmp_path: Path
) -> None:
    folder, log = ranked["folder"], ranked["log"]
    both = TwoStages(first=ranked["runs"], second=runs_of(tmp_path, RANKING))
    told = compared(both, folder, log, out=tmp_path / "out", quick=True, until=np.inf)
    assert told["verdict"] in ("helps", "hurts", "undecided")
    ratio = told[BOTH]["test"]["ndcg@10"] / told[ALONE]["test"]["ndcg@10"]
    assert told["both_over_alone"]["value"] == pytest.approx(ratio)
    runs = [stages.trained(folder, {}, 0) for stages in (both, replace(both, first=None))]
    inits = [load_yaml(run / "config.yaml", RunConfig).init for run in runs]
    assert inits == [ranked["runs"].trained(folder, {}, 0), None]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_configuration_that_its_settings_fit(family: str) -> None:
    runs = Runs(config=CONFIGS / f"{family}.yaml", folder=Path("unused"))
    for grid in variants_of(family).values():
        runs.read(Path("data"), {key: values[0] for key, values in grid.items()}, 0)
