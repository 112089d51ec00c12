from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from flm_torchrec.data.batch import TensorBatch


class Note(Pipelineable):
    """Remembers the stream it was recorded on."""

    def __init__(self) -> None:
        self.stream: torch.Stream | None = None

    def to(self, device: torch.device, non_blocking: bool = False) -> "Note":
        return self

    def record_stream(self, stream: torch.Stream) -> None:
        self.stream = stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(TensorBatch):
    note: Note
    numbers: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer(TensorBatch):
    inner: Inner
    features: KeyedJaggedTensor
    name: str


def outer() -> Outer:
    features = KeyedJaggedTensor(
        keys=["a"], values=torch.tensor([1, 2]), lengths=torch.tensor([1, 1])
    )
    return Outer(inner=Inner(note=Note(), numbers=torch.ones(2)), features=features, name="x")


def test_to_moves_tensors_features_and_nested_batches_and_keeps_the_rest():
    moved = outer().to(torch.device("meta"))
    assert moved.inner.numbers.device.type == "meta"
    assert moved.features.values().device.type == "meta"
    assert moved.features.keys() == ["a"]
    assert moved.name == "x"
    assert [field.name for field in fields(moved)] == ["inner", "features", "name"]


def test_to_leaves_the_original_where_it_is():
    batch = outer()
    batch.to(torch.device("meta"))
    assert batch.inner.numbers.tolist() == [1.0, 1.0]
    assert batch.features.values().tolist() == [1, 2]


def test_a_stream_is_recorded_on_nested_batches():
    note, stream = Note(), torch.Stream("cpu")

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Holder(TensorBatch):
        note: Note

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Whole(TensorBatch):
        holder: Holder
        name: str

    Whole(holder=Holder(note=note), name="x").record_stream(stream)
    assert note.stream is stream
