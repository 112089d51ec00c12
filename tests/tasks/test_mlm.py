import math

import pytest
import tiny
import tiny_model
import torch

from flm_torchrec.tasks.mlm import MaskedLM

H, W = 4, 6
# The first text hides one token, the second two, and the third has nothing hidden.
TARGET = torch.tensor([[-100, 2, -100], [-100, 5, 1], [-100, -100, -100]])
IS_HIDDEN = TARGET != -100


def task() -> MaskedLM:
    torch.manual_seed(0)
    return MaskedLM(hidden=H, vocabulary=W)


def loss(made: MaskedLM, states: torch.Tensor, embedding: torch.Tensor, target=TARGET):
    batch = tiny_model.batch([[1]], item_row=[0, 1], masked_target=target)
    return made(tiny_model.views(masked_states=states, token_embedding=embedding), batch)


def states() -> torch.Tensor:
    return torch.randn(3, 3, H, generator=torch.Generator().manual_seed(1))


def embedding() -> torch.Tensor:
    return torch.randn(W, H, generator=torch.Generator().manual_seed(2))


def test_with_uniform_logits_the_loss_is_the_log_of_the_vocabulary():
    target = TARGET[:2]
    value = loss(task(), states()[:2], torch.zeros(W, H), target)
    assert value.item() == pytest.approx(math.log(W))


def test_the_loss_is_the_mean_over_texts_of_the_mean_over_their_hidden_tokens():
    made = task()
    with torch.no_grad():
        made.bias.copy_(torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]))
    chance = made.bias.log_softmax(0)
    expected = -(chance[2] + (chance[5] + chance[1]) / 2 + 0) / 3
    assert loss(made, states(), torch.zeros(W, H)).item() == pytest.approx(expected.item())


def test_the_logits_are_products_with_the_token_embeddings():
    made = task()
    hidden = made.transform(states()[0])
    torch.testing.assert_close(made.logits(states()[0], embedding()), hidden @ embedding().T)


def test_visible_tokens_are_ignored():
    changed = states()
    changed[~IS_HIDDEN] = 7.0
    assert loss(task(), changed, embedding()) == loss(task(), states(), embedding())
    changed[0, 1] += torch.arange(H)
    assert loss(task(), changed, embedding()) != loss(task(), states(), embedding())


@pytest.mark.parametrize("texts", [0, 2])
def test_with_nothing_hidden_the_loss_is_0_and_has_a_gradient(texts):
    made = task()
    nothing = torch.full((texts, 3), -100)
    value = loss(made, states()[:texts], embedding(), nothing)
    value.backward()
    assert value.item() == 0.0
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_every_parameter_and_the_token_embeddings_get_a_gradient():
    made, tokens = task(), embedding().requires_grad_()
    loss(made, states(), tokens).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in made.parameters())
    assert tokens.grad.abs().sum() > 0


def test_the_loss_falls_on_texts_of_a_few_words(encoder_folder):
    config = tiny_model.config(
        text={"encoder": str(encoder_folder), "mode": "full", "rows": 1},
        tasks={"mlm": {"texts": 16}},
    )
    titles = ["red car", "blue boat", "old train", "plane"] * 2
    parts = tiny_model.parts(config, tiny.dataset(titles=titles))
    losses = tiny_model.train(parts, steps=50, lr=0.01)
    assert losses[-5:].mean() < 0.5 * losses[:3].mean()
