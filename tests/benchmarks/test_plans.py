"""Plans measured against each other, in miniature."""

import json
from pathlib import Path

import pytest
from flm_benchmarks import plans

from flm_torchrec.planning.cluster import Cluster
from flm_torchrec.planning.request import Request
from flm_torchrec.planning.tables import Table
from flm_torchrec.training.placing import SHARDING_TYPES

REQUEST = Request(
    tables=tuple(Table(name=f"t{place}", rows=10 * (place + 1), dim=8) for place in range(4)),
    cluster=Cluster(world_size=2, local_world_size=2, device="cpu"),
    types=SHARDING_TYPES,
)


@pytest.mark.parametrize(("most", "count"), [(3, 3), (20, 20), (60, 60)])
def test_the_plans_that_people_ask_for_come_first(most: int, count: int) -> None:
    found = plans.requests(REQUEST, most=most)
    assert len(found) == count
    assert list(found)[:3] == ["planned", "auto", "torchrec"]
    assert plans.requests(REQUEST, most=most) == found
    constrained = [own.constraints for own in found.values() if own.constraints]
    assert all(set(kinds) == {"t0", "t1", "t2", "t3"} for kinds in constrained)


def test_the_planned_one_is_measured_beside_the_fastest_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "MOST_BYTES", 2**20)
    out = tmp_path / "plans.jsonl"
    given = ["--out", str(out), "--mixes", "one-giant", "--most", "5", "--repeats", "2", "--short"]
    assert plans.main(given) == 0
    *each, whole = [json.loads(line) for line in out.read_text().splitlines()]
    assert each[0]["plan"] == "planned"
    assert whole["plans"] == len(each)
    assert set(whole["again_ms"]) == {line["plan"] for line in each}
    assert whole["ratio"] == pytest.approx(
        whole["again_ms"]["planned"] / min(whole["again_ms"].values())
    )
    for line in each:
        assert line["ranks"] == 1
        assert line["predicted_ms"] > 0
        assert line["quartiles_ms"][0] <= line["ms"] <= line["quartiles_ms"][1]
    before = out.read_text()
    assert plans.main(given) == 0
    assert out.read_text() == before
    # Cut off before the plans were measured in turn, and gone on with by fewer of them.
    out.write_text("".join(f"{json.dumps(line)}\n" for line in each))
    assert plans.main([*given[:5], "2", *given[6:]]) == 0
    again = json.loads(out.read_text().splitlines()[-1])
    assert again["plans"] == len(again["again_ms"]) <= 2
