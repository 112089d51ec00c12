"""In how many bytes the rows of tables are kept, and travel between ranks; what works with it."""

from collections.abc import Iterable, Mapping

from torchrec.distributed.fbgemm_qcomm_codec import CommType, QCommsConfig, get_qcomm_codecs
from torchrec.distributed.types import CommOp, QuantizedCommCodecs, ShardingType

from flm_torchrec.errors import UserError

# Bytes of a number on its way; 32 numbers of int8 have a scale and an offset beside them.
NUMBER_BYTES: Mapping[str, float] = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 40 / 32}
_INT8_BLOCK = 32
_DATA_PARALLEL = ShardingType.DATA_PARALLEL.value
# Numbers of int8 can't be added up on their way, as those of row shards are.
_INT8_TYPES = (
    _DATA_PARALLEL,
    ShardingType.TABLE_WISE.value,
    ShardingType.COLUMN_WISE.value,
    ShardingType.TABLE_COLUMN_WISE.value,
)


def codecs(communication: str, *, counted: bool = False) -> dict[str, QuantizedCommCodecs] | None:
    """What encodes and decodes each exchange, forward and backward; None leaves it as it is.

    `counted` is never None: TorchRec's planner counts the bytes of an exchange by it, and without
    one as those in which rows are kept. TorchRec's `get_qcomm_codecs_registry` would give fp16 for
    bf16 on gloo, which sends either.
    """
    if communication not in NUMBER_BYTES:
        raise UserError(f"communication: '{communication}' is not one of {', '.join(NUMBER_BYTES)}")
    if communication == "fp32" and not counted:
        return None
    precision = CommType(communication)
    both = QCommsConfig(forward_precision=precision, backward_precision=precision)
    operations = (CommOp.POOLED_EMBEDDINGS_ALL_TO_ALL, CommOp.POOLED_EMBEDDINGS_REDUCE_SCATTER)
    return {operation.name: get_qcomm_codecs(both) for operation in operations}


def works_with(
    sharding_type: str, *, communication: str, dtype: str = "fp32", width: int = _INT8_BLOCK
) -> bool:
    """Can tables of the sharding type and width keep their rows as `dtype` and exchange them so?"""
    if sharding_type == _DATA_PARALLEL:
        return dtype == "fp32"
    return communication != "int8" or (sharding_type in _INT8_TYPES and width % _INT8_BLOCK == 0)


def check_precision(
    table: str, *, sharding_type: str, widths: Iterable[int], communication: str, dtype: str
) -> None:
    """Raise UserError where a table with shards of these widths can't keep its rows as `dtype`, or
    exchange them as `communication`."""
    if not works_with(sharding_type, communication="fp32", dtype=dtype):
        raise UserError(
            f"sharding: {table} is {sharding_type}, but its rows are {dtype}, which only fused "
            "kernels update by state in fp32; allowed: another sharding type, or rows in fp32"
        )
    if not works_with(sharding_type, communication=communication):
        raise UserError(
            f"communication: {communication} can't add up the rows of {table}, which is "
            f"{sharding_type}; allowed: {', '.join(_INT8_TYPES)}, or communication fp32, fp16 or "
            "bf16"
        )
    odd = [width for width in widths if width % _INT8_BLOCK]
    if communication == "int8" and sharding_type != _DATA_PARALLEL and odd:
        raise UserError(
            f"communication: int8 sends {_INT8_BLOCK} numbers together, and {table} has shards "
            f"{odd[0]} wide; allowed: multiples of {_INT8_BLOCK}, or communication fp32, fp16 or "
            "bf16"
        )
