"""`auto` by a calibration: what a run does is what `flm plan` said."""

import json
from pathlib import Path
from typing import Any

import pytest
from calibrations import calibration
from flm_apps import plan as plan_app
from small_data import write_folder
from two_ranks.pool import Ranks

from flm_torchrec.assemble import assemble
from flm_torchrec.config import RunConfig
from flm_torchrec.errors import UserError
from flm_torchrec.planning.calibration import Collective, Line, write_calibration
from flm_torchrec.training.runtime import Runtime
from flm_torchrec.training.sharding import describe_plan

DEAR: Line = Line(fixed_ms=50.0, byte_ms=1.0)


def written(file: Path, dear: tuple[Collective, ...], **changes: Any) -> Path:
    """Of two ranks among which some collectives are dear."""
    known = calibration(
        lookup=Line(fixed_ms=0.01, id_ms=1e-4),
        update=Line(fixed_ms=0.01, id_ms=1e-4),
        dense_update=Line(),
        collectives={
            kind: DEAR if kind in dear else Line(fixed_ms=0.01)
            for kind in ("all_to_all", "all_gather", "reduce_scatter", "all_reduce")
        },
    )
    write_calibration(file, known.model_copy(update=changes))
    return file


def config(data: Path, calibration: Path | None, **sparse: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {"path": str(data), "users": 2, "window": 4},
            "views": {"width": 32, "history": {"layers": 1, "heads": 2}},
            "tasks": {"rank": {}},
            "train": {"steps": 3, "sparse": sparse},
            "calibration": calibration,
        }
    )


def plan_of(runtime: Runtime, run: RunConfig, training: bool = True) -> list[dict[str, Any]] | str:
    try:
        return describe_plan(assemble(run, runtime, training=training).dmp)
    except UserError as error:
        return str(error)


def as_planned(capsys: pytest.CaptureFixture[str], run: RunConfig, folder: Path) -> Any:
    file = folder / "run.yaml"
    file.write_text(json.dumps(run.model_dump(mode="json")))
    capsys.readouterr()
    assert (
        plan_app.main(["--config", str(file), "--world-size", "2", "--device", "cpu", "--json"])
        == 0
    )
    (plan,) = json.loads(capsys.readouterr().out)["plans"]
    return plan


@pytest.mark.parametrize(
    ("dear", "sparse", "expected"),
    [
        (("reduce_scatter",), {}, "table_wise"),
        (("all_to_all",), {"dtype": "fp16", "communication": "bf16"}, "row_wise"),
        (("all_to_all",), {"communication": "int8"}, "table_wise"),  # row_wise doesn't work
    ],
)
def test_a_run_has_the_plan_that_was_foretold(
    dear: tuple[Collective, ...],
    sparse: dict[str, str],
    expected: str,
    ranks: Ranks,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = config(write_folder(tmp_path / "data"), written(tmp_path / "known.json", dear), **sparse)
    found, same = ranks.run(plan_of, run)
    assert found == same
    plan = as_planned(capsys, run, tmp_path)
    assert plan["calibrated"]
    assert plan["communication"] == sparse.get("communication", "fp32")
    assert {table["table"]: (table["sharding_type"], table["ranks"]) for table in found} == {
        placed["table"]: (placed["sharding_type"], placed["ranks"]) for placed in plan["placements"]
    }
    assert {table["sharding_type"] for table in found} == {expected}


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        ({"world_size": 4}, "4 cpu ranks, 2 a host"),
        ({"device": "cuda"}, "2 cuda ranks, 2 a host"),
        ({"local_world_size": 1}, "2 cpu ranks, 1 a host"),
    ],
)
def test_a_calibration_of_another_cluster_is_refused_by_every_rank(
    changes: dict[str, Any], measured: str, ranks: Ranks, tmp_path: Path
) -> None:
    file = written(tmp_path / "known.json", (), **changes)
    for told in ranks.run(plan_of, config(write_folder(tmp_path / "data"), file)):
        assert f"was measured on {measured}, the run has 2 cpu ranks, 2 a host" in told


def test_a_calibration_that_is_gone_is_told_and_scoring_needs_none(
    alone: Runtime, tmp_path: Path
) -> None:
    run = config(write_folder(tmp_path / "data"), tmp_path / "none.json")
    assert f"calibration: {tmp_path}/none.json: there is no such file" in plan_of(alone, run)
    assert isinstance(plan_of(alone, run, training=False), list)
