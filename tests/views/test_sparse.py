import tiny
import torch
from tiny_model import materialise
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedTensor

from flm_torchrec.data.kjt import features_kjt
from flm_torchrec.views.sparse import SparseView, embedding_bags

ITEMS = tiny.dataset().items
SIZES = {name: column.num_embeddings for name, column in ITEMS.columns.items()}


def view() -> SparseView:
    torch.manual_seed(0)
    ebc = embedding_bags("items", SIZES, dim=8, multi=frozenset({"genres"}))
    made = SparseView(ebc, dim=8)
    materialise(made)
    return made


def table(made: SparseView, name: str) -> torch.Tensor:
    return made.ebc.embedding_bags[f"items_{name}"].weight


def test_tables_are_named_by_entity_and_feature_and_take_no_memory_yet():
    ebc = embedding_bags("items", SIZES, dim=8)
    configs = ebc.embedding_bag_configs()
    assert [(c.name, c.num_embeddings) for c in configs] == [
        ("items_item_id", 9),
        ("items_genres", 4),
    ]
    assert {parameter.device.type for parameter in ebc.parameters()} == {"meta"}


def test_a_row_is_the_sum_of_its_features_and_several_values_are_averaged():
    made = view()
    rows, per_feature = made(features_kjt(ITEMS.columns, torch.tensor([2, 4]).numpy()))
    ids, genres = table(made, "item_id"), table(made, "genres")
    mean = (genres[1] + genres[2]) / 2
    torch.testing.assert_close(rows[0], ids[2] + mean)
    torch.testing.assert_close(rows[1], ids[4])  # item 4 has no genre
    torch.testing.assert_close(per_feature[:, 0], ids[[2, 4]])
    torch.testing.assert_close(per_feature[:, 1], torch.stack([mean, torch.zeros(8)]))


def test_a_readers_own_tables_of_other_widths_and_any_name_are_projected():
    torch.manual_seed(0)
    configs = [
        EmbeddingBagConfig(
            name=f"mine_{name}", embedding_dim=width, num_embeddings=9, feature_names=[name]
        )
        for name, width in (("type", 4), ("items", 8))
    ]
    made = SparseView(EmbeddingBagCollection(tables=configs), dim=8)
    columns = {"type": ITEMS.columns["item_id"], "items": ITEMS.columns["item_id"]}
    rows, per_feature = made(features_kjt(columns, torch.tensor([3]).numpy()))
    projection = next(module for module in made.modules() if isinstance(module, nn.Linear))
    types, items = (made.ebc.embedding_bags[f"mine_{name}"].weight[3] for name in columns)
    torch.testing.assert_close(per_feature, torch.stack([projection(types), items])[None])
    torch.testing.assert_close(rows, per_feature.sum(1))


def test_features_are_read_by_their_names_in_whatever_order_they_come():
    made = view()
    kjt = features_kjt(ITEMS.columns, torch.tensor([2, 4]).numpy())
    pooled = made.ebc(kjt)
    width = pooled.length_per_key()
    genres, ids = pooled["genres"], pooled["item_id"]
    other = KeyedTensor(["genres", "item_id"], width, torch.cat([genres, ids], dim=1))
    torch.testing.assert_close(made.stack(other), made.features(kjt))


def test_numbers_are_added_to_the_row_but_are_no_feature():
    torch.manual_seed(0)
    made = SparseView(embedding_bags("items", SIZES, dim=8), dim=8, num_numbers=2)
    materialise(made)
    kjt = features_kjt(ITEMS.columns, torch.tensor([2, 4]).numpy())
    numbers = torch.tensor([[0.0, 0.0], [0.5, -1.0]])
    rows, per_feature = made(kjt, numbers)
    torch.testing.assert_close(rows - per_feature.sum(1), numbers @ made.numbers.weight.T)
    assert made.numbers.weight.std() < 0.05  # as small as the rows of tables


def test_every_table_gets_a_gradient():
    made = view()
    rows, _ = made(features_kjt(ITEMS.columns, torch.tensor([1]).numpy()))
    rows.sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert table(made, "item_id").grad.abs().sum(1).nonzero().flatten().tolist() == [1]
