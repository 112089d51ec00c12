import argparse

import pytest
from flm_benchmarks.sharding.arguments import check_batches, parser, points_of
from flm_benchmarks.sharding.point import (
    CUDA_KERNELS,
    CUDA_PIPELINES,
    KERNELS,
    PIPELINES,
    SHARDINGS,
    Point,
    impossible,
    product,
)

from flm_torchrec.errors import UserError


def arguments(*options: str) -> argparse.Namespace:
    return parser("").parse_args(options)


def test_every_sharding_type_and_the_planner_are_measured_by_default() -> None:
    points = points_of(arguments(), "fp16")
    assert [point.sharding for point in points] == list(SHARDINGS)
    dense = {point.sharding for point in points if point.kernel == "dense"}
    assert dense == {"data_parallel"}
    assert {(p.dtype, p.pipeline, p.batch_size, p.pooling, p.ids) for p in points} == {
        ("fp16", "sparse_dist", 1024, None, "uniform")
    }
    assert {p.sharding for p in points if impossible(p, "cpu") is not None} == dense  # in fp16
    whole = points_of(arguments(), "fp32")
    assert {impossible(point, "cpu") for point in whole} == {None}


def test_lists_are_multiplied_and_nothing_is_measured_twice() -> None:
    options = ["--sharding", "row_wise,auto,row_wise", "--batch-size", "8,16", "--ids", "zipf,log"]
    points = points_of(arguments(*options, "--log", "l.csv", "--pooling", "own,2.5"), "fp32")
    assert len(points) == len(set(points)) == 2 * 2 * 2 * 2
    assert {point.pooling for point in points} == {None, 2.5}
    assert {point.rows for point in points} == {None}
    assert {p.rows for p in points_of(arguments("--rows", "10,own"), "fp32")} == {None, 10}
    assert {point.ids for point in points} == {"zipf:1.05", "log"}


def test_the_ablation_goes_from_dense_tables_to_the_planners_choice() -> None:
    points = product(sharding=["auto"], ablation=True)
    assert [(point.sharding, point.kernel, point.pipeline) for point in points] == [
        ("auto", "fused", "sparse_dist"),
        ("data_parallel", "dense", "base"),
        ("table_wise", "fused", "base"),
        ("table_wise", "fused", "sparse_dist"),
    ]


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        *[(Point(kernel=kernel), f"kernel {kernel} is a GPU's") for kernel in CUDA_KERNELS],
        *[(Point(pipeline=name), f"pipeline {name} overlaps streams") for name in CUDA_PIPELINES],
        (Point(dtype="int8"), "they can't be trained"),
        (Point(kernel="quant", dtype="fp32"), "kernel quant has int8 rows"),
        (Point(kernel="quant", dtype="int8"), "over the devices of one process"),
        (
            Point(sharding="data_parallel", kernel="quant", dtype="int8"),
            "nothing that a pipeline could overlap",
        ),
        (Point(kernel="dense"), "kernel dense for data_parallel only"),
        (Point(sharding="data_parallel"), "data_parallel tables have kernel dense only"),
        (
            Point(sharding="data_parallel", kernel="dense", dtype="fp16"),
            "rows in fp16 are updated by fused kernels only",
        ),
    ],
)
def test_what_cannot_run_on_cpu_has_a_reason(point: Point, reason: str) -> None:
    assert reason in str(impossible(point, "cpu"))


def test_a_caching_kernel_may_hold_a_share_of_the_rows() -> None:
    kernels = ["--kernel", "fused,fused_uvm_caching:0.25,fused_uvm_caching"]
    points = points_of(arguments("--sharding", "row_wise", *kernels), "fp32")
    assert [(p.base_kernel, p.cached_share) for p in points] == [
        ("fused", None),
        ("fused_uvm_caching", 0.25),
        ("fused_uvm_caching", None),
    ]
    assert [impossible(point, "cuda") for point in points] == [None] * 3
    assert "kernel fused_uvm_caching is a GPU's" in str(impossible(points[1], "cpu"))


def test_every_combination_is_possible_or_has_a_reason_on_a_gpu_too() -> None:
    points = product(kernel=KERNELS, pipeline=PIPELINES)
    possible = [point for point in points if impossible(point, "cuda") is None]
    assert {point.pipeline for point in possible} == set(PIPELINES)
    assert {point.kernel for point in possible} == set(KERNELS) - {"quant"}
    prefetching = [point for point in possible if point.pipeline == "prefetch"]
    assert {point.kernel for point in prefetching} == {"fused_uvm_caching"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--sharding", "row"], "--sharding: 'row' is not one of all, data_parallel"),
        (["--kernel", "slow"], "--kernel: 'slow' is not one of all, dense, fused"),
        (["--dtype", "fp8"], "--dtype: 'fp8' is not one of all, fp32"),
        (["--kernel", "fused_uvm_caching:2"], "--kernel: 'fused_uvm_caching:2'; allowed: a share"),
        (["--kernel", "fused_uvm_caching:x"], "--kernel: 'fused_uvm_caching:x'; allowed: a share"),
        (["--pipeline", "base,"], "--pipeline: 'base,' has an empty entry"),
        (["--batch-size", "0"], "--batch-size: '0'; allowed: whole numbers of 1 or more"),
        (["--batch-size", "8,x"], "--batch-size: 'x'; allowed: whole numbers of 1 or more"),
        (["--rows", "1e6"], "--rows: '1e6'; allowed: own, or whole numbers of 1 or more"),
        (["--pooling", "-1"], "--pooling: '-1'; allowed: own, or numbers above 0"),
        (["--pooling", "nan"], "--pooling: 'nan'; allowed: own, or numbers above 0"),
        (["--ids", "normal"], "--ids: 'normal' is not one of uniform, zipf, zipf:EXPONENT, log"),
        (["--ids", "zipf:0"], "--ids: zipf:0; allowed: zipf:EXPONENT, a number above 0"),
        (["--ids", "zipf:x"], "--ids: zipf:x; allowed: zipf:EXPONENT"),
        (["--ids", "log"], "--ids log and --log FILE go together"),
        (["--log", "a.csv"], "--ids log and --log FILE go together"),
        (["--resume"], "--resume: there is no --out FILE to go on with"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_allowed(options: list[str], told: str) -> None:
    with pytest.raises(UserError) as error:
        points_of(arguments(*options), "fp32")
    assert told in str(error.value)


def test_a_seed_is_none_below_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments("--seed", "-1")
    assert "argument --seed: -1; allowed: 0 to 2147483647" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "world_size"), [(1, 2), (3, 2), (6, 4)])
def test_a_batch_that_ranks_cannot_share_evenly_is_refused(size: int, world_size: int) -> None:
    with pytest.raises(UserError, match=rf"{size} can't be shared evenly by {world_size} ranks"):
        check_batches([Point(batch_size=size)], world_size)
    check_batches([Point(batch_size=8)], world_size)
