"""Every metric against an independent library on random inputs, and at its edges."""

import math

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from flm_torchrec.evaluation.metrics import auc, log_loss, mae, ranking_metrics, rmse

KS = (1, 5, 10)


@pytest.fixture
def random_ranking():
    """Scores and relevance (50, 30), at least one relevant item a row; hits in ranked order."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(50, 30, generator=generator, dtype=torch.float64)
    is_relevant = torch.rand(50, 30, generator=generator) < 0.15
    is_relevant[:, 7] |= ~is_relevant.any(1)
    hits = is_relevant.gather(1, scores.argsort(dim=1, descending=True))
    return scores, is_relevant, ranking_metrics(hits[:, :10], is_relevant.sum(1), KS)


def test_ndcg_agrees_with_sklearn(random_ranking):
    scores, is_relevant, metrics = random_ranking
    for k in KS:
        for row, value in enumerate(metrics[f"ndcg@{k}"].tolist()):
            expected = sklearn_metrics.ndcg_score(
                is_relevant[row : row + 1].numpy(), scores[row : row + 1].numpy(), k=k
            )
            assert value == pytest.approx(expected, abs=1e-12)


def test_hit_rate_and_recall_agree_with_torchmetrics(random_ranking):
    scores, is_relevant, metrics = random_ranking
    for name, library in (("hr", retrieval_hit_rate), ("recall", retrieval_recall)):
        for k in KS:
            expected = [library(scores[row], is_relevant[row], top_k=k) for row in range(50)]
            torch.testing.assert_close(
                metrics[f"{name}@{k}"], torch.stack(expected).double(), atol=1e-6, rtol=0
            )


def test_reciprocal_rank_agrees_with_torchmetrics_within_k(random_ranking):
    scores, is_relevant, metrics = random_ranking
    exact = torch.stack(
        [retrieval_reciprocal_rank(scores[row], is_relevant[row]) for row in range(50)]
    ).double()
    for k in KS:
        expected = torch.where(exact > 1 / (k + 0.5), exact, 0.0)
        torch.testing.assert_close(metrics[f"mrr@{k}"], expected, atol=1e-6, rtol=0)


def test_ranking_metrics_by_hand():
    hits = torch.tensor([[False, True, True], [False, False, False]])
    metrics = ranking_metrics(hits, torch.tensor([4, 1]), ks=(2, 3))
    assert metrics["hr@2"].tolist() == [1, 0]
    assert metrics["recall@2"].tolist() == [0.25, 0]
    assert metrics["recall@3"].tolist() == [0.5, 0]
    assert metrics["mrr@3"].tolist() == [0.5, 0]
    gains = [1 / math.log2(place + 1) for place in (1, 2, 3)]
    assert metrics["ndcg@2"][0].item() == pytest.approx(gains[1] / sum(gains[:2]))
    assert metrics["ndcg@3"][0].item() == pytest.approx(sum(gains[1:]) / sum(gains))


@pytest.mark.parametrize("k", [0, 4])
def test_a_k_outside_the_ranking_is_refused(k):
    with pytest.raises(ValueError, match=rf"ks: {k} is outside 1\.\.3"):
        ranking_metrics(torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, dtype=torch.int64), (k,))


@pytest.mark.parametrize("levels", [3, 40, 10**9])
def test_auc_agrees_with_sklearn_with_few_and_many_ties(levels):
    generator = torch.Generator().manual_seed(levels)
    score = torch.randint(levels, (500,), generator=generator).float() / levels
    label = (torch.rand(500, generator=generator) < 0.3 + 0.4 * score).float()
    expected = sklearn_metrics.roc_auc_score(label.numpy(), score.numpy())
    assert auc(score, label) == pytest.approx(expected, abs=1e-12)


def test_auc_of_equal_scores_is_one_half():
    assert auc(torch.zeros(4), torch.tensor([0.0, 1.0, 1.0, 0.0])) == 0.5


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_auc_of_one_class_is_undefined(label):
    assert math.isnan(auc(torch.rand(5), torch.full((5,), label)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_loss_agrees_with_sklearn_at_certain_predictions_too(dtype):
    generator = torch.Generator().manual_seed(1)
    probability = torch.rand(300, generator=generator, dtype=dtype)
    probability[:4] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    label = torch.randint(2, (300,), generator=generator)
    expected = sklearn_metrics.log_loss(label.numpy(), probability.numpy())
    assert log_loss(probability, label) == pytest.approx(expected, rel=1e-6)


def test_log_loss_refuses_logits():
    with pytest.raises(ValueError, match="sigmoid"):
        log_loss(torch.tensor([-2.0, 0.5]), torch.tensor([0.0, 1.0]))


def test_errors_of_ratings_agree_with_sklearn():
    generator = torch.Generator().manual_seed(2)
    prediction = torch.rand(200, generator=generator) * 5
    value = torch.randint(1, 6, (200,), generator=generator).float()
    squared = sklearn_metrics.mean_squared_error(value.numpy(), prediction.numpy())
    absolute = sklearn_metrics.mean_absolute_error(value.numpy(), prediction.numpy())
    assert rmse(prediction, value) == pytest.approx(math.sqrt(squared), rel=1e-6)
    assert mae(prediction, value) == pytest.approx(absolute, rel=1e-6)


@pytest.mark.parametrize("metric", [auc, log_loss, rmse, mae])
def test_metrics_of_no_rows_are_undefined(metric):
    assert math.isnan(metric(torch.zeros(0), torch.zeros(0)))
