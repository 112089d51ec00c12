"""Data that lacks users, items, histories or interactions trains like any other."""

from typing import Any

import pytest
import tiny
import tiny_logs
import tiny_model
import torch

from flm_torchrec.build import build_model
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.encoder import TextEncoder, load_encoder
from flm_torchrec.training.pipeline import train_pipeline
from flm_torchrec.training.runtime import Runtime
from flm_torchrec.training.sharding import shard

CALM_HEADS = {"dropout": 0.0}


def parts(dataset: Dataset, encoder_folder=None, *, rows: int = 16, **more: Any):
    text = encoder_folder and {
        "encoder": str(encoder_folder),
        "mode": "full",
        "rows": 2,
        **more.pop("text", {}),
    }
    config = tiny_model.config(data={"rows": rows, **more.pop("data", {})}, text=text, **more)
    return tiny_model.parts(config, dataset)


@pytest.mark.parametrize("cross", ["none", "fm", "dcn"])
def test_a_log_of_context_alone_trains(cross):
    tasks = {"heads": CALM_HEADS | {"cross": cross}}
    made = parts(tiny_logs.clicks(), rows=32, tasks=tasks)
    assert made.model.flm.user_view is made.model.flm.item_view is None
    losses = tiny_model.train(made, steps=60)
    assert made.model.objective.names == ("click", "paid")
    assert (losses[-5:].mean(0) < 0.3 * losses[:3].mean(0)).all()


def test_impressions_train_their_order_and_their_clicks():
    made = parts(tiny_logs.impressions(), rows=32, tasks={"rank": {}, "heads": CALM_HEADS})
    losses = tiny_model.train(made, steps=60)
    assert made.model.objective.names == ("rank", "click")
    assert (losses[-5:].mean(0) < 0.5 * losses[:3].mean(0)).all()


@pytest.mark.parametrize("window", [0, 3])
def test_every_parameter_gets_a_gradient_with_and_without_a_history(window):
    made = parts(
        tiny_logs.impressions(), data={"window": window}, tasks={"rank": {}, "heads": CALM_HEADS}
    )
    assert (made.model.flm.history is None) is (window == 0)
    batch = made.collator.step(made.sampler, 0)
    views = made.model.flm(batch)
    assert views.users.states.shape[1] == window + 1
    losses, _ = made.model(batch)
    losses.sum().backward()
    missing = {name for name, p in made.model.named_parameters() if p.grad is None}
    assert missing == set()


def test_without_a_history_a_state_is_the_normed_row_of_the_user():
    flm = parts(tiny_logs.impressions(), data={"window": 0}).model.flm
    made = parts(tiny_logs.impressions(), data={"window": 0})
    batch = made.collator.step(made.sampler, 0)
    row, _ = flm.user_view(batch.users.features, batch.users.numbers)
    torch.testing.assert_close(flm(batch).users.states, flm.norm(row)[:, None])


def test_a_corpus_alone_trains_the_language_model(encoder_folder):
    made = parts(
        tiny_logs.corpus(["red car", "blue boat", "old train", "plane"] * 3),
        encoder_folder,
        tasks={"mlm": {"texts": 16}},
    )
    losses = tiny_model.train(made, steps=50, lr=0.01)
    assert losses[-5:].mean() < 0.5 * losses[:3].mean()


def test_two_texts_and_a_vector_of_an_item_are_views_that_learn_to_agree(encoder_folder):
    data = tiny_logs.with_views(tiny.dataset())
    tasks = {"rank": {}, "align": {"items": 8, "weight": 1.0}, "mlm": {}, "heads": {}}
    made = parts(data, encoder_folder, tasks=tasks)
    batch = made.collator.step(made.sampler, 0)
    items = made.model.flm(batch).items
    assert items.views.shape == (4, 9, 8)
    assert items.present.T[:4].tolist() == [
        [True, False, False, False],
        [True, True, True, True],
        [True, True, False, True],
        [True, True, True, False],
    ]
    losses, output = made.model(batch)
    assert output.view_weights.shape == (4,)
    losses.sum().backward()
    missing = {name for name, p in made.model.named_parameters() if p.grad is None}
    assert missing == set()
    losses = tiny_model.train(made, steps=40)
    assert losses[-5:, 1].mean() < 0.7 * losses[:3, 1].mean()


def sharded(made: tiny_model.Parts, runtime: Runtime, encoder: TextEncoder | None = None):
    """The model as TorchRec shards it, with its optimizer."""
    return shard(
        build_model(made.config, made.dataset, encoder),
        runtime.device,
        batch_size=16,
        sparse_optimizer="rowwise_adagrad",
        sparse_lr=0.1,
        dense_optimizer=lambda named: torch.optim.Adam([p for _, p in named], lr=0.01),
    )


def pipelined(made: tiny_model.Parts, runtime: Runtime, *, steps: int) -> torch.Tensor:
    """Losses (steps, T) under TorchRec's pipeline, which traces the model."""
    pipeline = train_pipeline(*sharded(made, runtime), runtime.device)
    batches = iter([made.collator.step(made.sampler, step) for step in range(steps)])
    return torch.stack([pipeline.progress(batches).losses for _ in range(steps)])


def test_a_log_of_context_alone_runs_in_the_pipeline(alone):
    made = parts(tiny_logs.clicks(), rows=32, tasks={"heads": CALM_HEADS | {"cross": "fm"}})
    losses = pipelined(made, alone, steps=30)
    assert (losses[-3:].mean(0) < losses[:3].mean(0)).all()


@pytest.mark.parametrize("window", [0, 3])
def test_impressions_run_in_the_pipeline(alone, window):
    made = parts(
        tiny_logs.impressions(), data={"window": window}, tasks={"rank": {}, "heads": CALM_HEADS}
    )
    losses = pipelined(made, alone, steps=30)
    assert (losses[-3:].mean(0) < losses[:3].mean(0)).all()


def test_a_model_without_tables_is_wrapped_too(alone, encoder_folder):
    texts = ["red car", "blue boat", "old train", "plane"] * 3
    made = parts(tiny_logs.corpus(texts), encoder_folder, tasks={"mlm": {"texts": 16}})
    dmp, optimizer = sharded(made, alone, load_encoder(made.config.views.text))
    losses = []
    for step in range(20):
        loss, output = dmp(made.collator.step(made.sampler, step))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        losses.append(output.losses)
    assert torch.stack(losses[-3:]).mean() < torch.stack(losses[:3]).mean()
