from dataclasses import replace

import pytest
import tiny
import tiny_logs
import tiny_model
import torch
from torch import Tensor

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.tasks.fusion_loss import FusionLoss, LoggedFusionLoss

# One user, 3 items, one dimension; the fused rows, then two views of them.
ROW = torch.tensor([[50.0], [1.0], [2.0], [3.0]])
VIEWS = torch.stack([ROW, torch.tensor([[9.0], [0.0], [1.0], [1.0]])])
STATES = torch.tensor([[[1.0], [2.0], [7.0]]])


def one_user() -> FLMBatch:
    return tiny_model.batch([[1, 2]], item_row=[0, 1, 2, 3])


def loss(batch: FLMBatch, *, present: Tensor | None = None, mask_seen: bool = False) -> Tensor:
    views = tiny_model.views(states=STATES, row=ROW, item_views=VIEWS, present=present)
    return FusionLoss(mask_seen=mask_seen)(views, batch)


def divergence(teacher: list[float], student: list[float]) -> float:
    log_share, other = (
        torch.tensor(scores, dtype=torch.float32).log_softmax(0) for scores in (teacher, student)
    )
    return float((log_share.exp() * (log_share - other)).sum())


def test_two_views_by_hand():
    # The first view is the fused one; the second agrees less.
    first, second = divergence([1, 2, 3], [0, 1, 1]), divergence([2, 4, 6], [0, 2, 2])
    assert loss(one_user()).item() == pytest.approx((first + second) / 2 / 2)


def test_the_teacher_is_of_all_views_also_where_view_dropout_hides_some():
    made = tiny_model.views(states=STATES, row=ROW, item_views=VIEWS)
    hidden = replace(made, items=replace(made.items, row=VIEWS[1]))
    task = FusionLoss(mask_seen=False, fuse=lambda views, present: (views[0], present))
    assert torch.equal(task(hidden, one_user()), loss(one_user()))


def test_what_was_met_is_masked_where_nobody_meets_an_item_twice():
    first, second = divergence([1, 2, 3], [0, 1, 1]), divergence([4, 6], [2, 2])
    assert loss(one_user(), mask_seen=True).item() == pytest.approx((first + second) / 2 / 2)


def test_rows_that_a_view_lacks_are_left_out_on_both_sides():
    present = torch.tensor([[True] * 4, [True, False, True, True]])
    first, second = divergence([2, 3], [1, 1]), divergence([4, 6], [2, 2])
    assert loss(one_user(), present=present).item() == pytest.approx((first + second) / 2 / 2)
    nothing = torch.tensor([[True] * 4, [True, False, False, False]])
    assert loss(one_user(), present=nothing).item() == 0.0


def test_sampled_negatives_are_corrected_by_how_often_they_are_drawn():
    batch = tiny_model.batch(
        [[1, 2]], item_row=[0, 1, 2, 3], first=[0, 1, 2, 3], log_q=[0.5, -0.25, 0.5]
    )
    first = divergence([1, 2.25, 2.5], [0, 1.25, 0.5])
    second = divergence([4, 1.5, 5.5], [2, -0.5, 1.5])
    assert loss(batch).item() == pytest.approx((first + second) / 2 / 2)


def test_the_fused_rows_are_a_teacher_without_a_gradient():
    states, row, item_views = (x.clone().requires_grad_() for x in (STATES, ROW, VIEWS))
    views = tiny_model.views(states=states, row=row, item_views=item_views)
    FusionLoss(mask_seen=False)(views, one_user()).backward()
    assert row.grad is None
    assert (item_views.grad[1, 1:].abs() > 0).all()
    assert states.grad[0, :2].abs().min() > 0


def test_what_views_add_to_the_scores_is_the_same_on_both_sides():
    views = tiny_model.views(states=STATES, row=ROW, item_views=VIEWS)
    linear = torch.tensor([[1.0, 0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]])
    batch = tiny_model.batch(
        [[1, 2]], item_row=[0, 1, 2, 3], first=[0, 1, 2, 3], log_q=[0.0, 0.0, 0.0, 0.0]
    )
    first, second = divergence([2, 4, 3], [1, 3, 1]), divergence([4, 3, 6], [2, 1, 2])
    value = FusionLoss(mask_seen=False)(replace(views, linear=linear), batch)
    assert value.item() == pytest.approx((first + second) / 2 / 2)


def shown() -> FLMBatch:
    """User 0 took item 1 and passed over items 2 and 3; user 1 took item 2, shown alone."""
    edges = tiny_model.edges(
        torch.tensor([1, 2, 3, 2]),
        user=torch.tensor([0, 0, 0, 1]),
        step=torch.tensor([1, 1, 1, 0]),
        weight=torch.tensor([0.75, 0.0, 0.0, 0.25]),
        is_negative=torch.tensor([False, True, True, False]),
        impression=torch.tensor([0, 0, 0, 1]),
    )
    return replace(tiny_model.batch([[1, 2], [3, 1]], item_row=[0, 1, 2, 3]), edges=edges)


@pytest.mark.parametrize("lacks", [[], [3], [1, 2, 3]])
def test_what_was_shown_at_once_is_one_distribution(lacks):
    present = torch.ones(2, 4, dtype=torch.bool)
    present[1, lacks] = False
    item_views = VIEWS.clone().requires_grad_()
    views = tiny_model.views(
        states=STATES.expand(2, -1, -1), row=ROW, item_views=item_views, present=present
    )
    value = LoggedFusionLoss()(views, shown())
    value.backward()
    kept = [i for i in range(3) if i + 1 not in lacks]
    pair = [[scores[i] for i in kept] for scores in ([2.0, 4.0, 6.0], [0.0, 2.0, 2.0])]
    assert value.item() == pytest.approx(0.75 * divergence(*pair) / 2, abs=1e-6)
    assert item_views.grad.isfinite().all()


@pytest.mark.parametrize("dataset", [tiny.dataset(tiny.cycles()), tiny_logs.impressions()])
def test_each_view_learns_to_rank_as_all_do_together(dataset, encoder_folder):
    config = tiny_model.config(
        data={"users": 6, "window": 6, "rows": 16},
        text={"encoder": str(encoder_folder)},
        tasks={"rank": {}, "fuse": {"weight": 1.0}},
    )
    parts = tiny_model.parts(config, dataset)
    teacher_only = tiny_model.parts(
        config.model_copy(update={"tasks": tiny_model.config().tasks}), dataset
    )
    losses = tiny_model.train(parts, steps=80)[:, 1]
    tiny_model.train(teacher_only, steps=80)
    fuse, apart = parts.model.objective.tasks["fuse"], []
    with torch.no_grad():
        for step in range(60, 80):
            batch = parts.collator.step(parts.sampler, step)
            apart.append(fuse(teacher_only.model.flm(batch), batch))
    assert losses[-20:].mean() < 0.7 * torch.stack(apart).mean()
