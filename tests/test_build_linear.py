from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny
import tiny_logs
import tiny_model
import torch

from flm_torchrec.build_data import id_bags
from flm_torchrec.build_linear import MOST_ITEMS, fitted, low_rank_path
from flm_torchrec.config import LinearConfig
from flm_torchrec.data.dataset import TRAIN, VALIDATION
from flm_torchrec.data.sampling import histories
from flm_torchrec.errors import UserError
from flm_torchrec.retrieval import evaluating
from flm_torchrec.tasks.ranking import edge_scores

REGRESSION = tiny_model.config(views={"linear": {}})
TABLES = tiny_model.config(views={"linear": {"rank": 4}})


def test_a_catalogue_with_too_many_pairs_is_pointed_to_two_tables():
    dataset = tiny.dataset()
    assert dataset.items is not None
    many = replace(dataset.items, ids=np.arange(MOST_ITEMS + 1).astype(object))
    told = (
        r"views\.linear: the data has 10001 items, each pair of which has a weight; allowed: at "
        r"most 10000, or views\.linear\.rank above 0: two tables of that width"
    )
    with pytest.raises(UserError, match=told):
        fitted(REGRESSION, replace(dataset, items=many))


@pytest.mark.parametrize("make", [partial(fitted, REGRESSION), partial(low_rank_path, TABLES)])
def test_data_without_histories_have_no_linear_path(make):
    with pytest.raises(UserError, match=r"views\.linear: the data has no histories of items"):
        make(tiny_logs.clicks())


def test_what_the_regression_alone_reads_has_no_effect_on_tables():
    with pytest.raises(ValueError, match="l2 has no effect with rank: 4"):
        LinearConfig(rank=4, l2=10.0)
    with pytest.raises(ValueError, match="reverse has no effect with rank: 4"):
        LinearConfig(rank=4, reverse=0.0)


def test_two_tables_have_a_row_for_each_id_and_begin_as_no_path():
    path = low_rank_path(TABLES, tiny.dataset())
    assert path is not None
    told = [
        (table.name, table.num_embeddings, table.embedding_dim)
        for view in (path.history, path.following)
        for table in view.ebc.embedding_bag_configs()
    ]
    assert told == [("linear_history_item_id", 9, 4), ("linear_next_item_id", 9, 4)]
    assert path.history.ebc.is_weighted()
    (following,) = path.following.ebc.embedding_bag_configs()
    rows = torch.ones(3, 4)
    assert following.init_fn is not None
    following.init_fn(rows)
    assert (rows == 0).all()


def test_without_a_rank_nothing_of_two_tables_is_made():
    dataset = tiny.dataset()
    assert low_rank_path(REGRESSION, dataset) is None
    assert id_bags(REGRESSION, dataset) is None
    parts = tiny_model.parts(REGRESSION, dataset)
    batch = parts.collator.step(parts.sampler, 0)
    assert batch.items.ids is None
    assert batch.edges.behind is None


def test_an_edge_alone_has_the_score_that_it_has_in_its_window():
    config = tiny_model.config(views={"linear": {"rank": 4}}, data={"window": 8})
    parts = tiny_model.parts(config, tiny.dataset())
    interactions = parts.dataset.interactions
    batch = parts.collator.step(parts.sampler, 0)
    is_first = interactions.user == batch.users.row[0].item()
    rows = np.flatnonzero(is_first & (interactions.part == TRAIN))
    alone = parts.collator.edge_batch(rows, histories(interactions, before_part=VALIDATION))
    with evaluating(parts.model):
        in_window = edge_scores(parts.model.flm(batch), batch)[: len(rows)]
        torch.testing.assert_close(edge_scores(parts.model.flm(alone), alone), in_window)
