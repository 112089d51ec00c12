import numpy as np
import pytest
import tiny
import tiny_model
import torch

from flm_torchrec.data.sampling import histories, last_windows
from flm_torchrec.retrieval import Retrieval, evaluating
from flm_torchrec.tasks.ranking import edge_scores

DATASET = tiny.dataset()
SEQS = histories(DATASET.interactions, before_part=2)
EVERYONE = np.array([1, 2, 3, 4, 5, 6])
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["all", 5], ids=["all", "sampled"])
def parts(encoder_folder, request) -> tiny_model.Parts:
    config = tiny_model.config(
        data={"negatives": request.param},
        views={"view_dropout": 0.5, "history": {"layers": 1, "dropout": 0.5}},
        text={"encoder": str(encoder_folder)},
        tasks={"rank": {}, "heads": {}},
    )
    return tiny_model.parts(config, DATASET)


def retrieval(parts, *, rank=0, world_size=1, gather=lambda tensor: tensor, **more) -> Retrieval:
    return Retrieval(
        parts.model,
        parts.collator,
        device=CPU,
        rank=rank,
        world_size=world_size,
        gather=gather,
        **more,
    )


def forward(parts, seqs):
    """Views of everyone's latest window, as training sees them, over the whole catalogue."""
    every = tiny_model.parts(
        tiny_model.config(
            text={"encoder": parts.config.views.text.encoder}, tasks={"rank": {}, "heads": {}}
        ),
        DATASET,
    ).collator
    batch = every.batch(last_windows(seqs, EVERYONE, 4), seqs, rng_key=(0,))
    with evaluating(parts.model):
        views = parts.model.flm(batch)
    return batch, views, views.users.states[torch.arange(6), batch.users.num_events]


def test_scores_are_the_last_state_times_the_items(parts):
    _, views, last = forward(parts, SEQS)
    made = retrieval(parts)
    torch.testing.assert_close(made.items, views.items.row)
    torch.testing.assert_close(made.scores(EVERYONE, SEQS), last @ views.items.row.T)


def test_a_low_rank_path_scores_the_catalogue_as_it_scores_edges():
    config = tiny_model.config(views={"linear": {"rank": 4}}, data={"users": 6})
    low_rank = tiny_model.parts(config, DATASET)
    for parameter in low_rank.model.flm.low_rank.parameters():
        torch.nn.init.normal_(parameter)
    rows = np.flatnonzero(DATASET.interactions.part == 2)
    user = DATASET.interactions.user[rows]
    batch = low_rank.collator.edge_batch(rows, SEQS)
    with evaluating(low_rank.model):
        views = low_rank.model.flm(batch)
    of_each = retrieval(low_rank).scores(user, SEQS)
    met = of_each.gather(1, torch.from_numpy(DATASET.interactions.item[rows])[:, None])[:, 0]
    torch.testing.assert_close(met, edge_scores(views, batch))
    assert (views.linear.abs() > 1e-3).all()


def test_scores_follow_the_events_that_are_known_by_then(parts):
    earlier = histories(DATASET.interactions, before_part=1)
    made = retrieval(parts)
    difference = (made.scores(EVERYONE, earlier) - made.scores(EVERYONE, SEQS)).abs().amax(1)
    assert (difference[:5] > 1e-4).all()
    assert difference[5] == 0  # user 6 has training events only


def test_a_user_may_be_anywhere_among_the_others_or_alone(parts):
    made = retrieval(parts)
    together = made.scores(EVERYONE, SEQS)
    mixed = np.array([4, 0, 1, 4])
    torch.testing.assert_close(made.scores(mixed, SEQS)[[0, 2, 3]], together[[3, 0, 3]])
    assert made.scores(mixed, SEQS).isfinite().all()  # row 0 is the unknown user


@pytest.mark.parametrize("block", [1, 2, 4, 100])
def test_items_are_the_same_in_blocks_of_any_size(parts, block):
    whole, made = retrieval(parts), retrieval(parts, block=block)
    torch.testing.assert_close(made.items, whole.items)


@pytest.mark.parametrize("block", [2, 100])
def test_two_ranks_encode_a_half_each(parts, block):
    of_rank_1: list[torch.Tensor] = []
    retrieval(
        parts,
        rank=1,
        world_size=2,
        block=block,
        gather=lambda tensor: of_rank_1.append(tensor) or tensor,
    )
    calls = iter(of_rank_1)
    both = retrieval(
        parts, world_size=2, block=block, gather=lambda tensor: torch.cat([tensor, next(calls)])
    )
    torch.testing.assert_close(both.items, retrieval(parts).items)
    assert next(calls, None) is None


def test_the_models_mode_is_left_as_it_was_and_no_gradient_is_kept(parts):
    for was_training in (True, False):
        parts.model.train(was_training)
        scores = retrieval(parts).scores(EVERYONE, SEQS)
        assert parts.model.training is was_training
        assert parts.model.flm.history.training is was_training
        assert not scores.requires_grad


def test_evaluating_restores_the_mode_after_an_error(parts):
    def fail() -> None:
        with evaluating(parts.model):
            assert not parts.model.training
            raise KeyError

    parts.model.train()
    with pytest.raises(KeyError):
        fail()
    assert parts.model.training
