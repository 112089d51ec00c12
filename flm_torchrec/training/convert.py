"""Optimizer state of tables from the form of one plan to that of another.

Row-wise Adagrad keeps the mean square gradient of a row, a number for each column shard of it: of
tables of R rows in C column shards that is (C * R,), shard after shard. Data-parallel tables keep
the same sums under other names.

    optimizer.PARAMETER.TABLE.momentum1   of a fused table: (C * R,) row-wise, (R, D) element-wise
    optimizer.PARAMETER.sum, .step        of a data-parallel one: (R, 1) or (R, D), and ()

From C column shards to one a row's sum becomes their mean, by the columns that each has: what it
would have been if the gradients had been the same. From one to C each gets the row's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

Shapes = Mapping[str, list[int] | None]
Widths = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How the state of one table is made from what a checkpoint holds of it.

    `held_widths` are the columns of each shard there, `widths` those here; both are empty when the
    state is element-wise, which is the same in either form.
    """

    parameter: str
    held: str  # key of the state
    wanted: str
    held_shape: list[int]
    shape: list[int]
    held_widths: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()

    @property
    def forgets_step(self) -> bool:
        """From data-parallel to fused, which counts no steps."""
        return self.held == "sum" and self.wanted != "sum"

    @property
    def needs_step(self) -> bool:
        """From fused to data-parallel."""
        return self.wanted == "sum" and self.held != "sum"

    def told(self) -> str:
        """What is done, for the user."""
        table = _table(self.parameter)
        before, after = len(self.held_widths), len(self.widths)
        if self.held_widths == self.widths:
            source, target = (
                ("data-parallel", "fused") if self.forgets_step else ("fused", "data-parallel")
            )
            return f"converted: optimizer state of {table} from {source} to {target} (as it is)"
        how = "their mean" if after == 1 else "a copy each" if before == 1 else "by their columns"
        shards = f"{before} column shard{'s' if before > 1 else ''} to {after}"
        return f"converted: optimizer state of {table} from {shards} ({how})"


def column_widths(model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Parameter -> the columns of each of its column shards, of a sharded model's state."""
    return {
        name: tuple(width for _, width in sorted(_columns(value)))
        for name, value in model.items()
        if isinstance(value, ShardedTensor)
    }


def conversions(
    held: Shapes, wanted: Shapes, *, held_widths: Widths, widths: Widths
) -> list[Conversion]:
    """What has to be made, table by table, of state that a checkpoint holds in another form.

    `held` and `wanted` are the shapes of all entries. What can't be made is left to whoever
    compares the entries.
    """
    made = []
    held_keys, wanted_keys = _state_keys(held), _state_keys(wanted)
    for entry, shape in wanted.items():
        parameter = entry.removeprefix("model.")
        if parameter == entry or shape is None or len(shape) != 2 or held.get(entry) != shape:
            continue
        if parameter not in held_keys or parameter not in wanted_keys:
            continue
        before, after = held_keys[parameter], wanted_keys[parameter]
        old, new = (
            list(shapes[f"optimizer.{parameter}.{key}"] or ())
            for shapes, key in ((held, before), (wanted, after))
        )
        is_rowwise = old != shape
        if is_rowwise != (new != shape):  # of another optimizer
            continue
        one = Conversion(
            parameter=parameter,
            held=before,
            wanted=after,
            held_shape=old,
            shape=new,
            held_widths=_widths(held_widths.get(parameter), old, shape) if is_rowwise else (),
            widths=_widths(widths.get(parameter), new, shape) if is_rowwise else (),
        )
        if (before, one.held_widths) != (after, one.widths):
            made.append(one)
    return made


def retyped(held: Mapping[str, torch.dtype], model: Mapping[str, Any]) -> list[str]:
    """What is done to the values of a model's state that a checkpoint holds as another type, for
    the user; `held` has the types of all its entries."""
    told = []
    for name, value in model.items():
        before = held.get(f"model.{name}")
        if isinstance(value, torch.Tensor) and before not in (None, value.dtype):
            is_exact = torch.promote_types(before, value.dtype) == value.dtype
            how = "as they are" if is_exact else "rounded"
            types = " to ".join(str(kind).removeprefix("torch.") for kind in (before, value.dtype))
            told.append(f"converted: rows of {_table(name)} from {types} ({how})")
    return told


def after_conversion(held: Shapes, made: Sequence[Conversion]) -> dict[str, list[int] | None]:
    """The shapes of the entries that a checkpoint of the entries `held` gives with conversions."""
    found = dict(held)
    for one in made:
        state = f"optimizer.{one.parameter}"
        del found[f"{state}.{one.held}"]
        found[f"{state}.{one.wanted}"] = one.shape
        if one.forgets_step:
            found.pop(f"{state}.step", None)
        elif one.needs_step:
            found[f"{state}.step"] = []
    return found


def regrouped(values: Tensor, held: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Row-wise sums (C, R) of column shards as wide as `held` -> (C', R) of those in `wanted`: the
    mean of those that a shard's columns were in, weighted by the columns."""
    weights = torch.zeros(len(wanted), len(held), dtype=torch.float64)
    start = 0
    for place, width in enumerate(wanted):
        begin = 0
        for other, held_width in enumerate(held):
            common = min(start + width, begin + held_width) - max(start, begin)
            weights[place, other] = max(0, common) / width
            begin += held_width
        start += width
    return (weights @ values.double()).to(values.dtype)


def request(
    state: Mapping[str, Mapping[str, Any]], made: Sequence[Conversion]
) -> dict[str, dict[str, Any]]:
    """The optimizer state of this rank as the checkpoint names and shapes it, to be read into."""
    asked = {name: dict(values) for name, values in state.items() if values}
    for one in made:
        if one.parameter not in asked:
            continue
        values = asked[one.parameter]
        target = values.pop(one.wanted)
        if one.needs_step:
            del values["step"]
        values[one.held] = torch.empty(one.held_shape) if one.widths else target
    return asked


def fill(
    state: Mapping[str, Mapping[str, Any]],
    read: Mapping[str, Mapping[str, Any]],
    made: Sequence[Conversion],
    *,
    step: int,
) -> None:
    """Make this rank's part of the state from what was `read` as `request` asked; `step` is the
    number of steps that were taken."""
    for one in made:
        if one.parameter not in state:
            continue
        values = state[one.parameter]
        if one.needs_step:
            values["step"].fill_(step)
        if one.widths:
            rows = read[one.parameter][one.held].view(len(one.held_widths), -1)
            _copy(values[one.wanted], regrouped(rows, one.held_widths, one.widths).reshape(-1))


def _copy(target: Tensor, values: Tensor) -> None:
    """Copy this rank's part of `values` (C * R,)."""
    if not isinstance(target, ShardedTensor):
        target.copy_(values.view(target.shape))
        return
    for shard in target.local_shards():
        (start,) = shard.metadata.shard_offsets
        shard.tensor.copy_(values[start : start + len(shard.tensor)])


def _columns(table: ShardedTensor) -> set[tuple[int, int]]:
    shards = table.metadata().shards_metadata
    return {(shard.shard_offsets[1], shard.shard_sizes[1]) for shard in shards}


def _table(parameter: str) -> str:
    return parameter.removesuffix(".weight").rpartition(".")[2]


def _state_keys(shapes: Shapes) -> dict[str, str]:
    """Parameter -> the key of its sums, where they are all that its optimizer keeps, as an Adagrad
    does."""
    keys: dict[str, set[str]] = {}
    for name in shapes:
        before, _, key = name.partition(".weight.")
        if key and before.startswith("optimizer."):
            keys.setdefault(f"{before.removeprefix('optimizer.')}.weight", set()).add(key)
    found = {}
    for parameter, own in keys.items():
        fused = f"{_table(parameter)}.momentum1"
        if own in ({fused}, {"sum", "step"}):
            found[parameter] = fused if fused in own else "sum"
    return found


def _widths(known: Sequence[int] | None, state: list[int], shape: list[int]) -> tuple[int, ...]:
    """The columns of each shard of a table of `shape` that has row-wise `state`; as many each
    where it isn't known, which is what TorchRec's planner makes."""
    rows, dim = shape
    count = max(1, state[0] // rows) if rows else 1
    if known is not None and len(known) == count:
        return tuple(known)
    return (dim // count,) * count
