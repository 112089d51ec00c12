"""Loads everything together and trains two tables for one step, in a process of its own.

Example:
    python -m flm_torchrec.planning.probe
"""

import importlib
import json
import tempfile

import torch
import torch.distributed as dist
from torchrec import EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection


def losses_of_one_step(device: torch.device) -> tuple[float, float]:
    """Loss before and after one step of two tables whose optimizer runs in the backward pass."""
    torch.manual_seed(0)
    tables = FusedEmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=f"table_{name}", num_embeddings=10, embedding_dim=8, feature_names=[name]
            )
            for name in ("a", "b")
        ],
        optimizer_type=torch.optim.SGD,
        optimizer_kwargs={"lr": 0.1},
        device=device,
    )
    features = KeyedJaggedTensor(
        keys=["a", "b"],
        values=torch.tensor([1, 2, 3, 4], device=device),
        lengths=torch.ones(4, dtype=torch.int64, device=device),
    )
    losses = []
    for _ in range(2):
        pooled = tables(features)
        loss = ((pooled["a"] + pooled["b"] - 1) ** 2).sum()
        loss.backward()
        losses.append(loss.item())
    return losses[0], losses[1]


def gloo_sum() -> float:
    """What a group of one process sums 1.0 to over gloo."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        total = torch.ones(1)
        dist.all_reduce(total)
        dist.destroy_process_group()
    return total.item()


def main() -> None:
    """Print one line of JSON: what loads, what trains, what can communicate."""
    for module in ("torchx.specs", "transformers"):
        importlib.import_module(module)
    cuda = torch.cuda.is_available()
    before, after = losses_of_one_step(torch.device("cuda" if cuda else "cpu"))
    seen = {
        "before": before,
        "after": after,
        "gloo": dist.is_gloo_available() and gloo_sum() == 1.0,
        "nccl": dist.is_nccl_available(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
