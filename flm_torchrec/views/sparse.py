"""The view of categorical features: an `EmbeddingBagCollection` that TorchRec shards."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor


def embedding_bags(
    prefix: str,
    num_embeddings: Mapping[str, int],
    *,
    dim: int,
    multi: frozenset[str] = frozenset(),
    std: float = 0.02,
) -> EmbeddingBagCollection:
    """One table `{prefix}_{feature}` a feature, on the meta device.

    Features in `multi` are averaged over their values. Rows start as normal(0, std).
    """
    tables = [
        EmbeddingBagConfig(
            name=f"{prefix}_{feature}",
            embedding_dim=dim,
            num_embeddings=rows,
            feature_names=[feature],
            pooling=PoolingType.MEAN if feature in multi else PoolingType.SUM,
            init_fn=partial(nn.init.normal_, std=std),
        )
        for feature, rows in num_embeddings.items()
    ]
    return EmbeddingBagCollection(tables=tables, device=torch.device("meta"))


class SparseView(nn.Module):
    """The sum of a row's feature embeddings, each brought to the joint width.

    Example:
        view = SparseView(EmbeddingBagCollection(tables=[...]), dim=64)
        rows, per_feature = view(kjt)  # (B, 64) and one (B, d) a feature
    """

    def __init__(self, ebc: EmbeddingBagCollection, *, dim: int) -> None:
        super().__init__()
        self.ebc = ebc
        widths = {
            feature: table.embedding_dim
            for table in ebc.embedding_bag_configs()
            for feature in table.feature_names
        }
        self.features = tuple(widths)
        # A list: in a ModuleDict a feature could not be called `type` or `items`.
        self.projections = nn.ModuleList(
            nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)
            for width in widths.values()
        )

    def forward(self, features: KeyedJaggedTensor) -> tuple[Tensor, list[Tensor]]:
        """KJT with stride B -> (B, dim) and, in the order of `features`, (B, d) each."""
        # Read by key: the column order of a KeyedTensor depends on the sharding plan.
        pooled = self.ebc(features)
        embeddings = [pooled[name] for name in self.features]
        row = self.projections[0](embeddings[0])
        for place in range(1, len(self.features)):
            row = row + self.projections[place](embeddings[place])
        return row, embeddings
