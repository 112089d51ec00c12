import pytest
import tiny
import tiny_model
import torch
from torch import nn

from flm_torchrec.trainable import Objective

ALL_TASKS = {"rank": {}, "align": {}, "mlm": {"texts": 4}, "heads": {}}
DATASET = tiny.dataset()


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, views, batch):
        return self.value


class Several(nn.Module):
    names = ("like", "rating")

    def forward(self, views, batch):
        return torch.tensor([5.0, 7.0])


def nothing():
    return tiny_model.views(), tiny_model.batch([[1]], item_row=[0, 1])


def test_losses_are_weighted_in_the_order_of_their_names():
    objective = Objective(
        {"rank": Constant(2.0), "heads": Several(), "align": Constant(3.0)},
        {"rank": 0.5, "heads": 0.1, "rating": 10.0},
    )
    found = objective(*nothing())
    assert objective.names == ("rank", "like", "rating", "align")
    assert found.minimised.tolist() == pytest.approx([1.0, 0.5, 70.0, 3.0])
    assert found.losses.tolist() == [2.0, 5.0, 7.0, 3.0]


def test_the_unweighted_losses_are_for_the_log_and_detached():
    found = Objective({"rank": Constant(2.0)})(*nothing())
    assert found.minimised.requires_grad
    assert not found.losses.requires_grad


def test_weights_are_no_part_of_a_checkpoint():
    assert list(Objective({"rank": Constant(2.0)}, {"rank": 3.0}).state_dict()) == [
        "tasks.rank.value"
    ]


def made(encoder_folder, *, negatives="all", **text) -> tiny_model.Parts:
    config = tiny_model.config(
        data={"users": 3, "negatives": negatives},
        text={"encoder": str(encoder_folder), **text},
        tasks=ALL_TASKS,
    )
    return tiny_model.parts(config, DATASET)


def test_a_step_gives_one_loss_a_task_and_the_mean_weight_of_each_view(encoder_folder):
    parts = made(encoder_folder)
    losses, output = parts.model(parts.collator.step(parts.sampler, 0))
    assert parts.model.objective.names == ("rank", "align", "mlm", "like", "rating")
    assert losses.shape == output.losses.shape == (5,)
    assert losses.isfinite().all()
    torch.testing.assert_close(losses, output.losses * torch.tensor([1.0, 0.1, 0.1, 1.0, 1.0]))
    # Rows 0 and 7 of the 9 have no text.
    assert output.view_weights.tolist() == pytest.approx([1 - 3.5 / 9, 3.5 / 9])
    assert output.to(torch.device("meta")).losses.device.type == "meta"


@pytest.mark.parametrize("negatives", ["all", 6])
@pytest.mark.parametrize(
    "text",
    [{}, {"mode": "last_n", "rows": 2}, {"mode": "full", "rows": 2}],
    ids=["frozen", "last_n", "full"],
)
def test_every_parameter_gets_a_gradient_but_the_frozen_text_encoders(
    encoder_folder, text, negatives
):
    parts = made(encoder_folder, negatives=negatives, **text)
    losses, _ = parts.model(parts.collator.step(parts.sampler, 0))
    losses.sum().backward()
    for name, parameter in parts.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert name.startswith("flm.text_view.encoder."), name
            assert parameter.grad is None, name


def test_a_step_is_a_function_of_the_batch_and_the_seed(encoder_folder):
    parts = made(encoder_folder)
    batch = parts.collator.step(parts.sampler, 3)
    values = []
    for _ in range(2):
        torch.manual_seed(5)
        values.append(parts.model(batch)[0])
    assert values[0].tolist() == values[1].tolist()


def test_all_tasks_fall_together(encoder_folder):
    config = tiny_model.config(
        data={"users": 6, "window": 6},
        text={"encoder": str(encoder_folder), "mode": "full", "rows": 2},
        tasks={**ALL_TASKS, "mlm": {"texts": 8, "weight": 1.0}},
    )
    losses = tiny_model.train(
        tiny_model.parts(config, tiny.dataset(tiny.cycles())), steps=60, lr=0.01
    )
    assert (losses[-5:].mean(0) < 0.8 * losses[:3].mean(0)).all()
