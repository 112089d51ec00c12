"""The benchmark of the data side, on logs so small that its figures mean nothing."""

from pathlib import Path

import pytest
from flm_benchmarks.click_models import compare
from flm_benchmarks.loader import measure

from flm_torchrec.data.sources.synthetic import write_synthetic

SMALL = """
data: {path: x, rows: 256, window: 0}
views: {width: 8}
tasks: {heads: {cross: fm, hidden: 16, width: 8, dropout: 0.0}}
train: {steps: 60, sparse: {lr: 0.1}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "small.yaml"
    file.write_text(SMALL)
    return file


@pytest.mark.parametrize(
    ("kind", "labels"), [("context", ["click"]), ("impressions", ["click", "conversion"])]
)
def test_both_models_learn_from_a_click_log(
    kind: str, labels: list[str], config: Path, tmp_path: Path
) -> None:
    entities = {"users": 50, "items": 20} if kind == "impressions" else {}
    write_synthetic(tmp_path / "log", kind=kind, interactions=20_000, seed=0, **entities)
    found = compare(tmp_path / "log", config, seed=0)
    assert found["steps"] == 60
    for model in ("flm", "dlrm"):
        # Half of the pairs would be in order by chance.
        assert all(0.53 < found[model][f"auc_{label}"] < 1 for label in labels)
        assert found[model]["samples_per_s"] > 0
    assert found["speed_ratio"] > 0


def test_the_loader_is_measured_alone_and_in_training(config: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "log", kind="context", interactions=20_000, seed=0)
    found = measure(config, tmp_path / "log", pairs=1)
    assert found["config"] == "small.yaml"
    assert found["loader_against_step"] > 0
    assert found["step_ms_with_loader"] > 0
