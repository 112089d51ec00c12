"""AdaLoRA as peft's own model trains it, and what its regulariser and its budget do."""

from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model
from tiny_model import save_decoder
from torch import Tensor, nn
from transformers import AutoModel

from flm_torchrec.views.adapters import add_adapters
from flm_torchrec.views.rank_allocation import RankAllocation, adalora_settings

RANK = 2
STEPS = 20


class Maps(nn.Module):
    """Two linear maps that say how far they are from a target."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 4)

    def forward(self, given: Tensor, target: Tensor) -> SimpleNamespace:
        return SimpleNamespace(
            loss=(self.second(self.first(given).tanh()) - target).square().mean()
        )


def maps() -> Maps:
    torch.manual_seed(0)
    return Maps()


def adapters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name.removeprefix("model."): value
        for name, value in model.named_parameters()
        if value.requires_grad
    }


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in adapters(model).items()}


def adapted() -> Maps:
    model = maps()
    torch.manual_seed(1)
    add_adapters(model, "adalora", rank=RANK)
    return model


def pefts_own(adapted: Maps) -> nn.Module:
    """peft's model of the same maps and adapters, which adds the regulariser to the loss."""
    model = get_peft_model(
        maps(), adalora_settings(rank=RANK, steps=STEPS, target_modules=["first", "second"])
    ).base_model
    with torch.no_grad():
        for name, value in adapters(model).items():
            value.copy_(adapters(adapted)[name])
    return model


def batch(step: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(step)
    return torch.randn(8, 6, generator=draws), torch.randn(8, 4, generator=draws)


def trained(model: nn.Module, ranks: RankAllocation | None, start: int = 0) -> list[Tensor]:
    optimizer = torch.optim.SGD(adapters(model).values(), lr=0.1)
    singular = []
    for step in range(start + 1, STEPS + 1):
        optimizer.zero_grad()
        model(*batch(step)).loss.backward()
        optimizer.step()
        if ranks is None:
            model.update_and_allocate(step)
        else:
            ranks.allocate(model, step, steps=STEPS)
        found = [value for name, value in values(model).items() if ".lora_E." in name]
        singular.append(torch.cat(found).flatten())
    return singular


def test_it_trains_as_pefts_own_model_does() -> None:
    ours = adapted()
    theirs = pefts_own(ours)
    trained(ours, RankAllocation(ours, rank=RANK))
    trained(theirs, None)
    assert values(ours).keys() == values(theirs).keys()
    for name, value in values(theirs).items():
        torch.testing.assert_close(values(ours)[name], value)


def test_half_as_much_rank_again_falls_to_what_was_asked_for() -> None:
    model = adapted()
    singular = trained(model, RankAllocation(model, rank=RANK))
    left = [int((own != 0).sum()) for own in singular]
    assert left[:2] == [6, 6]
    assert left[2:] == sorted(left[2:], reverse=True)
    assert set(left[-5:]) == {4}
    gone = [tuple((own == 0).tolist()) for own in singular[-6:]]
    assert len(set(gone)) == 1


@pytest.mark.parametrize("cut", [1, 9, 16])
def test_the_averages_are_all_that_training_goes_on_with(cut: int) -> None:
    whole = adapted()
    trained(whole, RankAllocation(whole, rank=RANK))
    model = adapted()
    ranks = RankAllocation(model, rank=RANK)
    optimizer = torch.optim.SGD(adapters(model).values(), lr=0.1)
    for step in range(1, cut + 1):
        optimizer.zero_grad()
        model(*batch(step)).loss.backward()
        optimizer.step()
        ranks.allocate(model, step, steps=STEPS)
    again = adapted()
    again.load_state_dict(model.state_dict())
    resumed = RankAllocation(again, rank=RANK)
    resumed.load_state_dict(ranks.state_dict())
    trained(again, resumed, start=cut)
    for name, value in values(whole).items():
        assert torch.equal(values(again)[name], value)


def test_the_gradient_is_that_of_a_loss_with_the_regulariser() -> None:
    model = adapted()
    with torch.no_grad():
        for value in adapters(model).values():
            value.normal_()
    theirs = pefts_own(model)
    theirs(*batch(0)).loss.backward()
    model(*batch(0)).loss.backward()
    for name, value in adapters(theirs).items():
        torch.testing.assert_close(adapters(model)[name].grad, value.grad)


def test_an_orthogonal_matrix_stays_as_it_is_and_nothing_becomes_nan() -> None:
    model = adapted()
    with torch.no_grad():
        for name, value in adapters(model).items():
            if ".lora_E." not in name:
                wide = value if ".lora_A." in name else value.T
                wide.copy_(torch.eye(*wide.shape))
    (0 * model(*batch(0)).loss).backward()
    for value in adapters(model).values():
        assert value.grad is not None
        assert value.grad.abs().max() == 0


def test_a_decoder_shares_out_its_ranks_too(tmp_path) -> None:
    decoder = AutoModel.from_pretrained(save_decoder(tmp_path)).train()
    add_adapters(decoder, "adalora", rank=RANK)
    ranks = RankAllocation(decoder, rank=RANK)
    optimizer = torch.optim.SGD(adapters(decoder).values(), lr=0.1)
    for step in (1, 2, 3):
        optimizer.zero_grad()
        decoder(input_ids=torch.tensor([[2, 5, 8, 3]])).last_hidden_state[:, :, 0].sum().backward()
        optimizer.step()
        ranks.allocate(decoder, step, steps=3)
    singular = torch.cat([v for name, v in values(decoder).items() if ".lora_E." in name])
    assert int((singular != 0).sum()) == RANK * len(singular) // 3


def test_an_encoder_says_the_same_with_its_adapters_at_first(encoder_folder) -> None:
    encoder = AutoModel.from_pretrained(encoder_folder, add_pooling_layer=False).eval()
    tokens = torch.tensor([[2, 5, 8, 3]])
    before = encoder(input_ids=tokens).last_hidden_state
    add_adapters(encoder, "adalora", rank=RANK)
    assert torch.equal(encoder(input_ids=tokens).last_hidden_state, before)
