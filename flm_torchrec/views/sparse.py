"""The view of categorical features: an `EmbeddingBagCollection` that TorchRec shards."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor


def embedding_bags(
    prefix: str,
    num_embeddings: Mapping[str, int],
    *,
    dim: int,
    multi: frozenset[str] = frozenset(),
    std: float = 0.02,
    is_weighted: bool = False,
    data_type: DataType = DataType.FP32,
) -> EmbeddingBagCollection:
    """One table `{prefix}_{feature}` a feature, on the meta device.

    Features in `multi` are averaged over their values, others added up, `is_weighted` by what the
    KJT gives each. Rows start as normal(0, std) and are kept as `data_type`, FP32 or FP16; once
    sharded, what is looked up is fp32 in either case.
    """
    tables = [
        EmbeddingBagConfig(
            name=f"{prefix}_{feature}",
            embedding_dim=dim,
            num_embeddings=rows,
            feature_names=[feature],
            pooling=PoolingType.MEAN if feature in multi else PoolingType.SUM,
            init_fn=partial(nn.init.normal_, std=std),
            data_type=data_type,
        )
        for feature, rows in num_embeddings.items()
    ]
    return EmbeddingBagCollection(
        tables=tables, is_weighted=is_weighted, device=torch.device("meta")
    )


class _Stack(nn.Module):
    """The pooled features of a collection side by side, each brought to one width.

    No part of `SparseView`'s own forward: that one is traced, which free Python can't be.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        super().__init__()
        self.features = tuple(widths)
        self.dim = dim
        self.is_even = set(widths.values()) == {dim}
        # A list: in a ModuleDict a feature could not be called `type` or `items`.
        self.projections = nn.ModuleList(
            nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)
            for width in widths.values()
        )

    def forward(self, pooled: KeyedTensor) -> Tensor:
        """-> (B, F, dim) in the order of `features`"""
        # By key: the column order of a KeyedTensor depends on the sharding plan.
        if self.is_even and tuple(pooled.keys()) == self.features:
            return pooled.values().unflatten(1, (len(self.features), self.dim))
        # By one split: backward, each `pooled[name]` would make zeros as large as all columns.
        columns = pooled.to_dict()
        rows = zip(self.projections, self.features, strict=True)
        return torch.stack([project(columns[name]) for project, name in rows], dim=1)


class SparseView(nn.Module):
    """The sum of a row's feature embeddings, each brought to the joint width, and its numbers.

    Example:
        view = SparseView(EmbeddingBagCollection(tables=[...]), dim=64)
        row, per_feature = view(kjt)  # (B, 64), (B, F, 64)
    """

    def __init__(self, ebc: EmbeddingBagCollection, *, dim: int, num_numbers: int = 0) -> None:
        super().__init__()
        self.ebc = ebc
        widths = {
            feature: table.embedding_dim
            for table in ebc.embedding_bag_configs()
            for feature in table.feature_names
        }
        self.dim = dim
        self.stack = _Stack(widths, dim=dim)
        self.numbers = nn.Linear(num_numbers, dim, bias=False) if num_numbers else None
        if self.numbers is not None:
            # As small as a table's rows.
            nn.init.normal_(self.numbers.weight, std=0.02)

    def features(self, features: KeyedJaggedTensor) -> Tensor:
        """KJT with stride B -> (B, F, dim) in the order of the collection's features."""
        return self.stack(self.ebc(features))

    def forward(
        self, features: KeyedJaggedTensor, numbers: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """KJT with stride B, numbers (B, num_numbers) -> row (B, dim), features (B, F, dim)."""
        embeddings = self.features(features)
        row = embeddings.sum(1)
        return (row if self.numbers is None else row + self.numbers(numbers)), embeddings
