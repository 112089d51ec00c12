import pytest
import torch

from flm_torchrec.views.fusion import Fusion, GatedFusion, MeanFusion, WeightedFusion

KINDS = [MeanFusion, WeightedFusion, GatedFusion]
# Row by row: all three views, two of them, one, none.
PRESENT = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)


def fusion(kind: type[Fusion], **more) -> Fusion:
    made = kind(num_views=3, dim=4, **more)
    torch.manual_seed(1)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def item_views(rows: int = 4) -> torch.Tensor:
    return torch.randn(3, rows, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_the_views_present_add_up_to_1(kind):
    fused, weights = fusion(kind)(item_views(), PRESENT)
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert (weights[~PRESENT.T] == 0).all()
    torch.testing.assert_close(fused, (weights.T[:, :, None] * item_views()).sum(0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_views_is_0(kind):
    fused, _ = fusion(kind)(item_views(), PRESENT)
    assert fused[3].tolist() == [0.0] * 4
    torch.testing.assert_close(fused[2], item_views()[1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_fusion_weighs_views_equally(kind):
    _, weights = kind(num_views=3, dim=4)(item_views(), PRESENT)
    torch.testing.assert_close(weights, PRESENT.T / PRESENT.sum(0).clamp(min=1)[:, None])


def test_weighted_views_by_hand():
    made = WeightedFusion(num_views=2, dim=1)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([3.0, 1.0]).log())
    views = torch.tensor([[[10.0]], [[20.0]]])
    fused, weights = made(views, torch.ones(2, 1, dtype=torch.bool))
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(fused, torch.tensor([[12.5]]))


def test_gated_weights_depend_on_the_row():
    _, weights = fusion(GatedFusion)(item_views(), torch.ones(3, 4, dtype=torch.bool))
    assert (weights[0] - weights[1]).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view_dropout", [0.5, 1.0])
def test_view_dropout_never_hides_the_last_view(kind, view_dropout):
    made = fusion(kind, view_dropout=view_dropout)
    torch.manual_seed(0)
    for _ in range(20):
        _, weights = made(item_views(), PRESENT)
        assert (weights[~PRESENT.T] == 0).all()
        shown = (weights > 0).sum(1)
        assert (shown[:3] >= 1).all()
        torch.testing.assert_close(weights.sum(1), (shown > 0).float())


def test_view_dropout_hides_a_share_of_the_views_in_training_only():
    made = MeanFusion(num_views=3, dim=4, view_dropout=0.2)
    present = torch.ones(3, 3000, dtype=torch.bool)
    torch.manual_seed(0)
    _, weights = made(item_views(3000), present)
    assert (weights == 0).float().mean() == pytest.approx(0.2 - 0.2**3, abs=0.02)
    made.eval()
    _, weights = made(item_views(3000), present)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3))


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_absent_view_holds_is_not_read(kind):
    views, made = item_views(), fusion(kind)
    other = torch.where(PRESENT[:, :, None], views, 100 * views - 7)
    assert not torch.equal(other, views)
    for first, second in zip(made(views, PRESENT), made(other, PRESENT), strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", [WeightedFusion, GatedFusion])
def test_every_parameter_gets_a_gradient(kind):
    made = kind(num_views=3, dim=4)
    made(item_views(), PRESENT)[0].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in made.parameters())
