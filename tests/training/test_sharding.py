from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchrec.distributed.types import ShardingPlan
from two_ranks.pool import Ranks
from two_ranks.toy import DENSE_LR, ROWS, SPARSE_LR, WIDE, make, run
from two_ranks.whole import whole_state

from flm_torchrec.errors import UserError
from flm_torchrec.planning.request import meta_collection
from flm_torchrec.planning.tables import Table
from flm_torchrec.training.optimizers import DenseOptimizer, scale_dense_lr, set_table_lr
from flm_torchrec.training.placing import SHARDING_TYPES, auto_planner, placements
from flm_torchrec.training.runtime import Runtime
from flm_torchrec.training.sharding import describe_plan, list_optimizers

TABLES = {
    "users.ebc.embedding_bags.user.weight",
    "users.ebc.embedding_bags.age.weight",
    "items.ebc.embedding_bags.item.weight",
}
DENSE = {
    "users.dense.0.weight",
    "users.dense.0.bias",
    "items.dense.0.weight",
    "items.dense.0.bias",
    "losses.bias",
}


@pytest.fixture(params=SHARDING_TYPES)
def sharding(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def several(sharding: str, request: pytest.FixtureRequest) -> Ranks:
    """Enough ranks for tables of the type to be split as it splits them."""
    is_on_four = sharding in ("table_row_wise", "grid_shard")
    return request.getfixturevalue("four_ranks" if is_on_four else "ranks")


def optimizers_of(runtime: Runtime, sharding: str) -> dict[str, tuple[str, float]]:
    return list_optimizers(*make(runtime, sharding, dim=WIDE))


def test_every_parameter_has_exactly_one_optimizer(sharding: str, several: Ranks) -> None:
    found, *others = several.run(optimizers_of, sharding)
    assert all(other == found for other in others)
    copied = sharding == "data_parallel"
    of_tables = "RowWiseAdagrad" if copied else "fused exact_row_wise_adagrad"
    assert found.keys() == TABLES | DENSE
    for name, (kind, lr) in found.items():
        expected = (of_tables, SPARSE_LR) if name in TABLES else ("AdamW", DENSE_LR)
        assert (kind, lr) == (expected[0], pytest.approx(expected[1])), name


def test_a_parameter_without_an_optimizer_is_named(alone: Runtime) -> None:
    dmp, optimizer = make(alone)
    dense = next(part for _, part in optimizer.optimizers if isinstance(part, DenseOptimizer))
    forgotten = dense.params["losses.bias"]
    for group in dense.param_groups:
        group["params"][:] = [p for p in group["params"] if p is not forgotten]
    with pytest.raises(RuntimeError, match=r"losses\.bias has optimizers \[\]"):
        list_optimizers(dmp, optimizer)


def test_the_dense_learning_rate_leaves_that_of_the_tables(alone: Runtime) -> None:
    dmp, optimizer = make(alone)
    for factor in (0.5, 0.1, 1.0):
        scale_dense_lr(optimizer, factor)
        found = list_optimizers(dmp, optimizer)
        assert {found[name][1] for name in DENSE} == {DENSE_LR * factor}
        assert [found[name][1] for name in TABLES] == pytest.approx([SPARSE_LR] * len(TABLES))


def moves(runtime: Runtime, sharding: str, rates: list[float]) -> list[dict[str, torch.Tensor]]:
    """How far SGD moves each table in its third step, by the rate that is set before it."""
    found = []
    for rate in rates:
        dmp, optimizer = make(runtime, sharding, sparse_optimizer="sgd", dim=WIDE)
        run(runtime, dmp, optimizer, steps=2)
        before = whole_state(dmp, optimizer)
        set_table_lr(optimizer, rate)
        run(runtime, dmp, optimizer, start=2, steps=3)
        after = whole_state(dmp, optimizer)
        names = [f"model.{name}" for name in sorted(TABLES)]
        found.append(
            {name: torch.tensor(after[name]) - torch.tensor(before[name]) for name in names}
        )
    return found


def test_tables_move_by_the_rate_that_is_set(sharding: str, several: Ranks) -> None:
    still, one, twice = several.run(moves, sharding, [0.0, SPARSE_LR, 2 * SPARSE_LR])[0]
    for name in one:
        assert not still[name].any(), name
        assert one[name].abs().max() > 1e-5, name
        torch.testing.assert_close(twice[name], 2 * one[name], rtol=1e-3, atol=1e-7)


def test_auto_never_copies_a_table_to_every_rank(ranks: Ranks) -> None:
    plan, same = ranks.run(plan_of, "auto")
    assert plan == same
    assert {entry["sharding_type"] for entry in plan} <= {"table_wise", "row_wise"}


def plan_of(runtime: Runtime, default: str) -> list[dict[str, object]]:
    return describe_plan(make(runtime, default)[0])


def test_a_kernel_that_caches_holds_the_share_that_is_asked_for(alone: Runtime) -> None:
    """Planned for a GPU, without one."""
    plan = auto_planner(
        torch.device("cuda"),
        batch_size=8,
        constraints={},
        default="row_wise",
        kernels={"t": "fused_uvm_caching"},
        communication="fp32",
        cached_share=0.25,
    )(meta_collection([Table(name="t", rows=100, dim=16)]))
    ((_, placement),) = placements(plan)
    assert placement.compute_kernel == "fused_uvm_caching"
    assert placement.cache_params is not None
    assert placement.cache_params.load_factor == 0.25


def test_a_table_can_have_a_sharding_type_of_its_own(alone: Runtime) -> None:
    dmp, _ = make(alone, "table_wise", constraints={"age": "row_wise"})
    assert {entry["table"]: entry["sharding_type"] for entry in describe_plan(dmp)} == {
        "user": "table_wise",
        "age": "row_wise",
        "item": "table_wise",
    }


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda alone: make(alone, "diagonal"), "sharding.default: 'diagonal' is not one of auto"),
        (lambda alone: make(alone, constraints={"age": "row"}), "sharding.age: 'row' is not one"),
        (lambda alone: make(alone, constraints={"ago": "row_wise"}), "'ago' is not one of user"),
        (lambda alone: make(alone, sparse_optimizer="adam"), "'adam' runs on CUDA only"),
        (lambda alone: make(alone, sparse_optimizer="adami"), "'adami' is unknown; on cpu choose"),
    ],
)
def test_what_cannot_be_sharded_is_told(
    attempt: Callable[[Runtime], object], message: str, alone: Runtime
) -> None:
    with pytest.raises(UserError) as told:
        attempt(alone)
    assert message in str(told.value)


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad"])
def test_every_fused_optimizer_of_the_cpu_moves_the_rows_it_met(name: str, alone: Runtime) -> None:
    dmp, optimizer = make(alone, sparse_optimizer=name)
    before = {key: table.clone() for key, table in rows(dmp).items()}
    run(alone, dmp, optimizer, steps=2)
    for key, table in rows(dmp).items():
        assert not torch.equal(table, before[key]), key


def rows(dmp: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = dmp.state_dict()
    return {name: state[name].local_shards()[0].tensor for name in TABLES}


def too_large(runtime: Runtime) -> str:
    ROWS["item"] = 10**13
    try:
        make(runtime, "row_wise")
    except UserError as error:
        return str(error)
    finally:
        ROWS["item"] = 30
    return ""


def test_tables_that_fit_nowhere_are_told_by_every_rank(alone: Runtime, ranks: Ranks) -> None:
    assert "no plan shards" in too_large(alone)
    for told in ranks.run(too_large):
        assert "no plan shards" in told


def no_plan(model: nn.Module) -> ShardingPlan:
    raise LookupError("nothing fits")


def raised(runtime: Runtime) -> tuple[str, str]:
    try:
        make(runtime, planner=no_plan)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def test_no_rank_waits_for_a_plan_that_the_first_failed_to_make(ranks: Ranks) -> None:
    first, second = ranks.run(raised)
    assert first == ("LookupError", "nothing fits")
    assert second == ("RuntimeError", "rank 0 made no plan: LookupError: nothing fits")
