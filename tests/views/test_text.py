import pytest
import torch
from transformers import AutoModel, DistilBertConfig, DistilBertModel

from flm_torchrec.data.batch import MaskedText, TextRows
from flm_torchrec.views.text import TextView, freeze

TOKENS = torch.tensor([[2, 5, 8, 3], [2, 9, 3, 0]])
ATTENTION = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
NONE = torch.zeros(0, 1, dtype=torch.int64)
NO_TEXT = TextRows(item=NONE[:, 0], name=NONE[:, 0], tokens=NONE, attention=NONE)
NOTHING_MASKED = MaskedText(tokens=NONE, attention=NONE, target=NONE)


@pytest.fixture
def view(encoder_folder) -> TextView:
    torch.manual_seed(0)
    encoder = AutoModel.from_pretrained(encoder_folder, add_pooling_layer=False)
    return TextView(encoder, hidden=16, dim=8).eval()


def trained(view: TextView) -> set[str]:
    return {name for name, parameter in view.encoder.named_parameters() if parameter.requires_grad}


def test_a_vector_is_the_mean_of_the_token_states_at_length_sqrt_h(view):
    vectors = view.encode(TOKENS, ATTENTION)
    states = view.encoder(input_ids=TOKENS[1:, :3]).last_hidden_state
    mean = states[0].mean(0)
    torch.testing.assert_close(vectors[1], 4 * mean / mean.norm())
    torch.testing.assert_close(vectors.norm(dim=1), torch.tensor([4.0, 4.0]))


def test_rows_are_projections_of_cached_vectors(view):
    view.vectors = torch.randn(1, 5, 16)
    view.vectors[0, 2] = 0
    item = torch.tensor([4, 2, 0])
    rows, has_text, states, embedding = view(item, NO_TEXT, NOTHING_MASKED)
    torch.testing.assert_close(rows, view.projections[0](view.vectors[:, item]))
    assert has_text.tolist() == [[True, False, True]]
    assert states.shape == (0, 1, 16)
    assert embedding is view.encoder.get_input_embeddings().weight


def test_fresh_rows_replace_the_cached_ones_and_carry_the_gradient(view):
    cached = view.vectors = torch.randn(1, 5, 16)
    text = rows_of_text([3, 1], [0, 0])
    (rows,), _, _, _ = view(torch.arange(5), text, NOTHING_MASKED)
    (project,) = view.projections
    torch.testing.assert_close(rows[[3, 1]], project(view.encode(TOKENS, ATTENTION)))
    torch.testing.assert_close(rows[[0, 2, 4]], project(cached[0, [0, 2, 4]]))
    rows[[0, 2, 4]].sum().backward(retain_graph=True)
    weight = view.encoder.encoder.layer[0].attention.self.query.weight
    assert weight.grad is None or weight.grad.abs().sum() == 0
    rows.square().sum().backward()
    assert weight.grad.abs().sum() > 0


def rows_of_text(item: list[int], name: list[int]) -> TextRows:
    return TextRows(
        item=torch.tensor(item), name=torch.tensor(name), tokens=TOKENS, attention=ATTENTION
    )


def test_each_text_of_an_item_is_a_view_with_a_projection_of_its_own(view):
    torch.manual_seed(1)
    two = TextView(view.encoder, hidden=16, dim=8, names=("title", "plot")).eval()
    cached = two.vectors = torch.randn(2, 5, 16)
    cached[1, 4] = 0
    fresh = two.encode(TOKENS, ATTENTION)  # the plot of item 3, the title of item 1
    rows, has_text, _, _ = two(torch.arange(5), rows_of_text([3, 1], [1, 0]), NOTHING_MASKED)
    title, plot = two.projections
    torch.testing.assert_close(rows[0, [0, 2, 3, 4]], title(cached[0, [0, 2, 3, 4]]))
    torch.testing.assert_close(rows[0, 1], title(fresh[1]))
    torch.testing.assert_close(rows[1, :3], plot(cached[1, :3]))
    torch.testing.assert_close(rows[1, 3], plot(fresh[0]))
    assert has_text.tolist() == [[True] * 5, [True] * 4 + [False]]


def test_a_corpus_without_items_is_only_masked(view):
    alone = TextView(view.encoder, hidden=16, dim=8, names=()).eval()
    masked = MaskedText(tokens=TOKENS, attention=ATTENTION, target=TOKENS)
    rows, has_text, states, _ = alone(None, NO_TEXT, masked)
    assert rows.shape == (0, 0, 8)
    assert has_text.shape == (0, 0)
    torch.testing.assert_close(states, alone.token_states(TOKENS, ATTENTION))
    assert list(alone.projections.parameters()) == []


def test_states_of_masked_texts_are_the_encoders_own(view):
    masked = MaskedText(tokens=TOKENS, attention=ATTENTION, target=TOKENS)
    _, _, states, _ = view(NONE[:, 0], NO_TEXT, masked)
    expected = view.encoder(input_ids=TOKENS, attention_mask=ATTENTION).last_hidden_state
    torch.testing.assert_close(states, expected)


def test_frozen_trains_nothing_and_has_no_dropout(view):
    freeze(view.encoder, "frozen", last=1)
    assert trained(view) == set()
    assert [name for name, p in view.named_parameters() if p.requires_grad] == [
        "projections.0.weight",
        "projections.0.bias",
    ]
    calm = view.encode(TOKENS, ATTENTION)
    view.train()
    torch.testing.assert_close(view.encode(TOKENS, ATTENTION), calm)


def test_last_n_trains_the_last_layers(view):
    freeze(view.encoder, "last_n", last=1)
    names = {name for name, _ in view.encoder.named_parameters()}
    assert trained(view) == {name for name in names if name.startswith("encoder.layer.1.")}
    freeze(view.encoder, "last_n", last=2)
    assert trained(view) == {name for name in names if name.startswith("encoder.layer.")}


def test_last_n_keeps_the_dropout_of_what_trains(view):
    freeze(view.encoder, "last_n", last=1)
    view.train()
    drops = {
        name: module.training
        for name, module in view.encoder.named_modules()
        if isinstance(module, torch.nn.Dropout)
    }
    assert {on for name, on in drops.items() if name.startswith("encoder.layer.1.")} == {True}
    assert {on for name, on in drops.items() if not name.startswith("encoder.layer.1.")} == {False}


def test_full_trains_everything(view):
    freeze(view.encoder, "full", last=1)
    assert trained(view) == {name for name, _ in view.encoder.named_parameters()}


def test_another_architecture_has_its_last_layers_too():
    sizes = DistilBertConfig(vocab_size=12, dim=16, n_layers=3, n_heads=2, hidden_dim=32)
    view = TextView(DistilBertModel(sizes), hidden=16, dim=8)
    freeze(view.encoder, "last_n", last=1)
    assert trained(view) == {
        name
        for name, _ in view.encoder.named_parameters()
        if name.startswith("transformer.layer.2.")
    }
    assert view.encode(TOKENS, ATTENTION).shape == (2, 16)
