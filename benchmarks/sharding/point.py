"""One setting of the sharding benchmark, the product of several, and why one can't be measured.

Example:
    points = product(sharding=("table_wise", "auto"), kernel=("auto",), batch_size=(512, 1024))
    for point in points:
        print(told(point), impossible(point, "cpu"))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as cartesian

from flm_torchrec.training.placing import DATA_PARALLEL, SHARDING_TYPES

SHARDINGS = (*SHARDING_TYPES, "auto")  # auto: the planner's choice
CACHING = "fused_uvm_caching"  # or fused_uvm_caching:SHARE, of the rows, that the GPU holds
CUDA_KERNELS = ("fused_uvm", CACHING, "key_value")
KERNELS = ("dense", "fused", "quant", *CUDA_KERNELS)
DTYPES = ("fp32", "fp16", "int8")
CUDA_PIPELINES = ("fused_sparse_dist", "semi_sync", "prefetch")
PIPELINES = ("base", "sparse_dist", *CUDA_PIPELINES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What the tables, the batch and the step of one measurement are."""

    sharding: str = "auto"
    kernel: str = "fused"
    dtype: str = "own"  # own: of each table
    pipeline: str = "sparse_dist"
    batch_size: int = 1024  # samples of a step, over all ranks
    rows: int | None = None  # of every table; None: each its own
    pooling: float | None = None  # ids a bag, mean; None: of each table
    ids: str = "uniform"  # or zipf:EXPONENT, or log

    @property
    def base_kernel(self) -> str:
        """The kernel without the share of its cache."""
        return self.kernel.partition(":")[0]

    @property
    def cached_share(self) -> float | None:
        """Of the rows, that a caching kernel holds; None: as many as TorchRec takes."""
        share = self.kernel.partition(":")[2]
        return float(share) if share else None

    @property
    def trains(self) -> bool:
        """Whether there is anything but a forward pass."""
        return self.kernel != "quant"


# What the optimisations add one after the other, the first being what plain TorchRec starts from.
ABLATION = (
    ("dense, base", DATA_PARALLEL, "dense", "base"),
    ("+ fused", "table_wise", "fused", "base"),
    ("+ ids ahead", "table_wise", "fused", "sparse_dist"),
    ("+ planned", "auto", "fused", "sparse_dist"),
)


def product(
    *,
    sharding: Sequence[str] = SHARDINGS,
    kernel: Sequence[str] = ("auto",),
    dtype: Sequence[str] = ("own",),
    pipeline: Sequence[str] = ("sparse_dist",),
    batch_size: Sequence[int] = (1024,),
    rows: Sequence[int | None] = (None,),
    pooling: Sequence[float | None] = (None,),
    ids: Sequence[str] = ("uniform",),
    ablation: bool = False,
) -> list[Point]:
    """Every combination once, those of the ablation behind; kernel auto is the type's usual one."""
    kinds = [
        (kind, usual_kernel(kind) if computed == "auto" else computed, overlap)
        for kind, computed, overlap in cartesian(sharding, kernel, pipeline)
    ]
    kinds += [row[1:] for row in ABLATION] if ablation else []
    points = [
        Point(
            sharding=kind,
            kernel=computed,
            pipeline=overlap,
            dtype=of_rows,
            batch_size=samples,
            rows=count,
            pooling=each,
            ids=drawn,
        )
        for of_rows, samples, count, each, drawn in cartesian(dtype, batch_size, rows, pooling, ids)
        for kind, computed, overlap in kinds
    ]
    return list(dict.fromkeys(points))


def usual_kernel(sharding: str) -> str:
    """The kernel that TorchRec takes for a sharding type by itself."""
    return "dense" if sharding == DATA_PARALLEL else "fused"


def told(point: Point) -> str:
    """The setting in a few words."""
    rows = "" if point.rows is None else f" rows {point.rows}"
    pooled = "" if point.pooling is None else f" pooling {point.pooling:g}"
    plan = f"{point.sharding} {point.kernel} {point.pipeline}"
    return f"{plan} {point.dtype} batch {point.batch_size}{rows}{pooled} {point.ids}"


def impossible(point: Point, device_type: str) -> str | None:
    """Why a combination can't run on such a device, whatever its tables; None where it can."""
    return _without_gpu(point, device_type) or _quantised(point) or _of_kernel(point)


def _without_gpu(point: Point, device_type: str) -> str | None:
    if device_type == "cuda":
        return None
    if point.base_kernel in CUDA_KERNELS:
        return f"kernel {point.base_kernel} is a GPU's; this job runs on {device_type}"
    if point.pipeline in CUDA_PIPELINES:
        return (
            f"pipeline {point.pipeline} overlaps streams of a GPU; this job runs on {device_type}"
        )
    return None


def _quantised(point: Point) -> str | None:
    if point.dtype == "int8" and point.kernel != "quant":
        return "int8 rows are for inference, they can't be trained; kernel quant measures them"
    if point.kernel != "quant":
        return None
    if point.dtype != "int8":
        return f"kernel quant has int8 rows here, not {point.dtype}"
    if point.sharding != DATA_PARALLEL:
        return (
            "TorchRec shards quantised tables over the devices of one process, not over ranks; "
            f"with {DATA_PARALLEL} each rank answers its share of the batch from a copy"
        )
    if point.pipeline != "base":
        return "a forward pass alone has nothing that a pipeline could overlap; base measures it"
    return None


def _of_kernel(point: Point) -> str | None:
    if point.kernel == "dense" and point.sharding != DATA_PARALLEL:
        return f"TorchRec offers kernel dense for {DATA_PARALLEL} only"
    if point.kernel not in ("dense", "quant") and point.sharding == DATA_PARALLEL:
        return f"{DATA_PARALLEL} tables have kernel dense only: every rank adds up all gradients"
    if point.sharding == DATA_PARALLEL and point.dtype == "fp16":
        return "rows in fp16 are updated by fused kernels only, which keep their state in fp32"
    if point.pipeline == "prefetch" and point.base_kernel != CACHING:
        return f"pipeline prefetch fills a cache, which only kernel {CACHING} has"
    return None
