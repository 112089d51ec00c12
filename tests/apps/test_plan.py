"""`flm plan`: what it prints, its exit codes, and what it says of mistakes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from flm_apps import calibrate as calibrate_app
from flm_apps import plan as plan_app
from flm_apps.planned import Outcome, lines
from small_data import write_folder

from flm_torchrec.planning.alternatives import Remedy
from flm_torchrec.planning.calibration import read_calibration
from flm_torchrec.planning.cluster import Cluster
from flm_torchrec.planning.findings import Finding
from flm_torchrec.planning.plan import Planned, make_plan
from flm_torchrec.planning.request import Request
from flm_torchrec.planning.tables import preset

TABLES = """tables:
  shown: {rows: 1000, dim: 16, pooling: 2}
  readers: {rows: 500, dim: 16}
"""
CPU = ("--device", "cpu", "--batch-size", "8")


@pytest.fixture
def tables(tmp_path: Path) -> str:
    (tmp_path / "tables.yaml").write_text(TABLES)
    return str(tmp_path / "tables.yaml")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    plan_app.main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_placements_ranks_and_findings_are_printed(capsys, tables):
    assert plan_app.main(["--tables", tables, "--world-size", "2", *CPU]) == 0
    out = capsys.readouterr().out
    assert "2 tables on 2 cpu ranks, 2 a host; 8 samples a rank" in out
    for words in ("table_wise", " x 16", "predicted step:", "all tables in one way:"):
        assert words in out
    assert "next-best plans:" in out
    assert "note: times are by TorchRec's built-in constants" in out


def test_several_world_sizes_are_compared_on_a_page(capsys, tables, tmp_path):
    page = tmp_path / "plan.html"
    sizes = ("--world-size", "4,2")
    assert plan_app.main(["--tables", tables, *sizes, *CPU, "--out", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("  ranks  step ms  samples/s")
    assert [line.split()[0] for line in lines[place + 1 :]] == ["2", "4"]
    html = page.read_text()
    for words in ("By world size", "Predicted step, ms, by ranks", "ranks 4", "</html>"):
        assert words in html
    assert "http" not in html  # self-contained


def test_json_holds_it_all(capsys, tables):
    found = told(capsys, "--tables", tables, "--world-size", "2", *CPU)
    assert (found["format"], found["version"]) == ("flm-plan", 1)
    (plan,) = found["plans"]
    assert plan["fits"]
    assert [placed["table"] for placed in plan["placements"]] == ["shown", "readers"]
    assert {load["rank"] for load in plan["ranks"]} == {0, 1}
    assert "row_wise" in plan["families"]
    assert plan["bottleneck"]["table"] in ("shown", "readers")
    assert plan["cluster"]["world_size"] == 2


def test_the_exit_code_is_1_when_nothing_fits(capsys, tables):
    small = ("--tables", tables, "--world-size", "2", *CPU, "--host-memory", "60KB")
    assert plan_app.main([*small]) == 1
    assert "error: nothing fits" in capsys.readouterr().out
    (plan,) = told(capsys, *small)["plans"]
    assert not plan["fits"]
    assert plan["findings"][0]["remedies"]


def test_a_size_that_fits_among_others_is_enough(tables):
    sizes = ("--tables", tables, "--world-size", "1,8", "--local-world-size", "1")
    assert plan_app.main([*sizes, *CPU, "--host-memory", "60KB"]) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "what is to be planned? give --preset, --tables or --config"),
        (("--preset", "dlrm-v3"), "preset: 'dlrm-v3' is not one of criteo-small, dlrm-v2"),
        (("--preset", "equal", "--world-size", "12"), "no whole number of hosts of 8"),
        (("--preset", "equal", "--world-size", "many"), "--world-size: 'many'"),
        (("--preset", "equal", "--hbm", "80"), "--hbm: '80' is no size"),
        (("--preset", "equal", "--inter-bandwidth", "200Gb/s"), "--inter-bandwidth: '200Gb/s'"),
        (("--preset", "equal", "--device", "cpu", "--hbm", "1GB"), "--hbm: a cpu has none"),
        (
            ("--preset", "equal", "--device", "cpu", "--optimizer", "lamb"),
            "'lamb' runs on CUDA only; on cpu choose one of",
        ),
        (("--preset", "equal", "--optimizer", "lion"), "'lion' is unknown"),
        (("--preset", "equal", "--sharding", "diagonal"), "'diagonal' is not one of"),
        (("--preset", "equal", "--calibration", "no.json"), "--calibration no.json: there is no"),
        (("--preset", "equal", "--batch-size", "-1"), "--batch-size: -1; allowed: 1 or more"),
        (("--preset", "equal", "--batch-size", "0"), "--batch-size: 0; allowed: 1 or more"),
        (("--preset", "equal", "--hbm", ""), "--hbm: '' is no size"),
        (("--preset", "equal", "--inter-bandwidth", ""), "--inter-bandwidth: '' is no bandwidth"),
        (("--preset", "equal", "--sharding", ""), "'' is not one of"),
        (("--preset", "equal", "data.path=x"), "data.path=x: settings belong to --config"),
        (("--tables", "TAKEN"), "table 'items': torch has no room for a module of that name"),
        (("--tables", "none.yaml"), "none.yaml: there is no such file"),
        (("--config", "none.yaml"), "--config none.yaml: no such file"),
    ],
)
def test_mistakes_end_in_one_line_and_code_2(capsys, tmp_path, arguments, error):
    taken = tmp_path / "taken.yaml"
    taken.write_text("tables: {items: {rows: 9, dim: 4}}")
    arguments = [str(taken) if argument == "TAKEN" else argument for argument in arguments]
    assert plan_app.main([*arguments]) == 2
    told = capsys.readouterr().err
    assert error in told
    assert told.count("\n") == 1


def test_a_width_that_fused_tables_refuse_is_an_error(capsys, tmp_path):
    odd = tmp_path / "odd.yaml"
    odd.write_text("tables: {a: {rows: 100, dim: 6}, b: {rows: 100, dim: 8}}")
    for device in ("cpu", "cuda"):
        plan_app.main(["--tables", str(odd), "--world-size", "2", "--device", device])
        error = "error: a: 6 numbers wide; FBGEMM's fused tables are multiples of 4 wide"
        assert error in capsys.readouterr().out


def test_types_may_be_told_with_spaces(capsys, tables):
    types = ("--sharding", "column_wise, row_wise")
    (plan,) = told(capsys, "--tables", tables, "--world-size", "2", *CPU, *types)["plans"]
    assert {placed["sharding_type"] for placed in plan["placements"]} <= {"column_wise", "row_wise"}


def test_a_remedy_that_is_no_faster_says_so():
    cluster = Cluster(world_size=2, local_world_size=2, device="cpu")
    plan = make_plan(Request(tables=preset("equal"), cluster=cluster, batch_size=8))
    assert isinstance(plan, Planned)
    changes = {"as fast": plan.step_ms, "faster": plan.step_ms / 2}
    remedies = tuple(Remedy(kind="balance", change=c, step_ms=ms) for c, ms in changes.items())
    finding = Finding(level="warning", kind="imbalance", text="uneven", remedies=remedies)
    out = list(lines("it", [Outcome(plan, {}, [finding])]))
    step = f"{plan.step_ms:.3f} ms"
    assert f"  as fast: fits, a step takes {step}, no less than the plan's {step}" in out
    assert f"  faster: fits, a step takes {plan.step_ms / 2:.3f} ms" in out


def test_a_preset_and_tables_are_too_much(capsys, tables):
    with pytest.raises(SystemExit) as stopped:
        plan_app.main(["--preset", "equal", "--tables", tables])
    assert stopped.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_run_is_planned_from_its_yaml_and_data(capsys, tmp_path):
    data = write_folder(tmp_path / "data")
    run = ("--config", "tiny", "--world-size", "2", "--device", "cpu", f"data.path={data}")
    (plan,) = told(capsys, *run)["plans"]
    assert {"users_age", "items_genres"} <= {placed["table"] for placed in plan["placements"]}
    assert plan["types"] == ["table_wise", "row_wise"]  # what training's auto chooses from
    assert "pipelined" in {finding["kind"] for finding in plan["findings"]}


def test_a_run_of_rows_in_fp16_needs_half_the_memory_for_them(capsys, tmp_path):
    data = write_folder(tmp_path / "data")
    run = ("--config", "tiny", "--world-size", "2", "--device", "cpu", f"data.path={data}")
    whole, half = (
        told(capsys, *run, f"train.sparse.dtype={dtype}")["plans"][0]["placements"]
        for dtype in ("fp32", "fp16")
    )
    for before, after in zip(whole, half, strict=True):
        rows = sum(rows for rows, _ in before["shards"])
        assert before["host_memory"] - after["host_memory"] >= rows * 32 * 2


def test_a_calibration_that_a_run_names_and_is_gone_is_told_by_its_key(capsys, tmp_path):
    data = write_folder(tmp_path / "data")
    gone = f"calibration={tmp_path}/none.json"
    assert plan_app.main(["--config", "tiny", "--device", "cpu", f"data.path={data}", gone]) == 2
    assert f" calibration: {tmp_path}/none.json: there is no such" in capsys.readouterr().err


def test_a_run_that_int8_cannot_serve_is_told(capsys, tmp_path):
    data = write_folder(tmp_path / "data")
    run = ("--config", "tiny", "--device", "cpu", f"data.path={data}", "sharding.default=row_wise")
    assert plan_app.main([*run, "train.sparse.communication=int8"]) == 2
    assert "int8 can't add up the rows of users_" in capsys.readouterr().err


def test_a_machine_is_measured_and_the_plan_uses_it(capfd, tables, tmp_path):
    file = tmp_path / "calibration.json"
    short = ("--short", "--repeats", "2", "--out", str(file))
    assert plan_app.main(["calibrate", *short]) == 0
    assert "1 cpu ranks, copies" in capfd.readouterr().out
    assert read_calibration(file).collectives == {}
    arguments = ("--tables", tables, "--world-size", "1", *CPU, "--calibration", str(file))
    (plan,) = told(capfd, *arguments)["plans"]
    assert plan["calibrated"]
    assert plan["ranks"][0]["parts_ms"]["overhead"] >= 0
    assert not [f for f in plan["findings"] if f["kind"] == "calibration"]


def test_a_measurement_is_repeated_at_least_once(capfd):
    assert calibrate_app.main(["--repeats", "0"]) == 2
    assert "--repeats: 0; allowed: 1 or more" in capfd.readouterr().err


def test_help_and_arguments_need_no_torch():
    code = (
        "import sys, flm_apps.plan as plan; plan._parser().format_help(); plan._tables("
        "plan._parser().parse_args(['--preset', 'equal'])); print(*sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(told.stdout.split())
    assert "flm_torchrec.planning.tables" in modules
    assert not modules & {"torch", "torchrec"}
