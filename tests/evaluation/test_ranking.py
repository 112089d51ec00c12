"""Ranking the whole catalogue: what is left out, ties, several ranks."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from flm_torchrec.errors import UserError
from flm_torchrec.evaluation.ranking import (
    ItemLists,
    RankingTask,
    evaluate,
    held_out_task,
    items_of_users,
    top_items,
)

NUM_ITEMS = 40


def lists(*rows):
    lengths = [len(row) for row in rows]
    return ItemLists(
        values=np.array([item for row in rows for item in row], dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def as_rows(ragged):
    return [part.tolist() for part in np.split(ragged.values, ragged.offsets[1:-1])]


def events(num_users=23, seed=0):
    """user, item, part of random users; user 5 has no events of parts 1 and 2."""
    rng = np.random.default_rng(seed)
    user, item, part = [], [], []
    for row in range(1, num_users + 1):
        met = rng.choice(np.arange(1, NUM_ITEMS), size=rng.integers(3, 12), replace=False)
        user += [row] * len(met)
        item += met.tolist()
        part += [0] * len(met) if row == 5 else [0] * (len(met) - 2) + [1, 2]
    return np.array(user), np.array(item), np.array(part, dtype=np.int8)


def table_score(seed=0, levels=10**6):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(levels, (100, NUM_ITEMS), generator=generator).float()
    return lambda users: table[torch.from_numpy(users)]


def test_a_held_out_task_has_seen_all_earlier_parts():
    user = np.array([1, 1, 1, 1, 2, 2, 3, 3, 3])
    item = np.array([4, 5, 6, 7, 8, 9, 1, 2, 3])
    part = np.array([0, 0, 1, 2, 0, 0, 0, 1, 2], dtype=np.int8)
    test = held_out_task(user, item, part, part_to_rank=2, num_users=4)
    assert test.users.tolist() == [1, 3]
    assert as_rows(test.seen) == [[4, 5, 6], [1, 2]]
    assert as_rows(test.targets) == [[7], [3]]
    validation = held_out_task(user, item, part, part_to_rank=1, num_users=4)
    assert as_rows(validation.seen) == [[4, 5], [1]]
    assert as_rows(validation.targets) == [[6], [2]]


def test_a_held_out_task_knows_what_was_wanted_and_what_repeats():
    user = np.array([2, 1, 2, 0, 1, 2])
    item = np.array([4, 5, 6, 7, 8, 9])
    part = np.array([0, 0, 2, 2, 2, 2], dtype=np.int8)
    is_wanted = np.array([1, 1, 1, 1, 0, 1], dtype=bool)
    task = held_out_task(
        user, item, part, part_to_rank=2, num_users=3, is_wanted=is_wanted, repeats=True
    )
    assert task.users.tolist() == [2]
    assert as_rows(task.targets) == [[6, 9]]
    assert as_rows(task.seen) == [[]]


def test_items_of_users_keep_their_order():
    lists = items_of_users(np.array([2, 0, 2]), np.array([9, 8, 7]), num_users=4)
    assert as_rows(lists) == [[8], [], [9, 7], []]


def test_lists_are_taken_in_any_order_and_more_than_once():
    assert as_rows(lists([1, 2], [], [3]).take(np.array([2, 1, 0, 2]))) == [[3], [], [1, 2], [3]]


def test_seen_items_and_the_unknown_item_are_not_ranked():
    user, item, part = events()
    task = held_out_task(user, item, part, part_to_rank=2, num_users=24)
    topk = evaluate(table_score(), task, num_items=NUM_ITEMS).topk
    assert (topk > 0).all()
    for row, seen in enumerate(as_rows(task.seen)):
        assert not np.isin(topk[row], seen).any()


def test_the_ranking_is_that_of_a_plain_sort():
    user, item, part = events()
    task = held_out_task(user, item, part, part_to_rank=2, num_users=24)
    score = table_score(levels=4)  # many ties
    result = evaluate(score, task, num_items=NUM_ITEMS, ks=(3, 10), block=7)
    for row, (seen, targets) in enumerate(
        zip(as_rows(task.seen), as_rows(task.targets), strict=True)
    ):
        scores = score(task.users[row : row + 1])[0].tolist()
        left = [i for i in range(1, NUM_ITEMS) if i not in seen]
        best = sorted(left, key=lambda i, scores=scores: (-scores[i], i))[:10]
        assert result.topk[row].tolist() == best
        assert result.per_user["hr@3"][row] == float(targets[0] in best[:3])
    assert result.mean["hr@3"] == pytest.approx(result.per_user["hr@3"].mean())


def test_equal_scores_rank_the_lower_row_first():
    scores = torch.tensor([[1.0, 2.0, 2.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert top_items(scores, 3).tolist() == [[4, 1, 2], [0, 1, 2]]


def test_the_lower_row_comes_first_in_a_long_list_of_ties_too():
    scores = torch.randint(3, (4, 2000), generator=torch.Generator().manual_seed(0)).float()
    expected = np.argsort(-scores.numpy(), axis=1, kind="stable")[:, :1000]
    np.testing.assert_array_equal(top_items(scores, 1000), expected)


def test_a_user_who_has_seen_nearly_everything_gets_a_short_list():
    seen = [i for i in range(1, NUM_ITEMS) if i not in (6, 9)]
    task = RankingTask(users=np.array([3]), seen=lists(seen), targets=lists([9]))
    result = evaluate(table_score(), task, num_items=NUM_ITEMS, ks=(10,))
    assert sorted(result.topk[0, :2].tolist()) == [6, 9]
    assert result.topk[0, 2:].tolist() == [0] * 8
    assert result.mean["hr@10"] == 1


def test_a_catalogue_smaller_than_k_is_ranked_whole():
    task = RankingTask(users=np.array([1]), seen=lists([]), targets=lists([2]))
    result = evaluate(lambda users: torch.tensor([[9.0, 1.0, 2.0]]), task, num_items=3, ks=(5,))
    assert result.topk.tolist() == [[2, 1, 0, 0, 0]]
    assert result.mean["coverage@5"] == 1


def test_candidates_alone_are_ranked_and_covered():
    task = RankingTask(
        users=np.array([1]),
        seen=lists([]),
        targets=lists([2]),
        candidates=np.array([False, False, True, True, False]),
    )
    score = torch.tensor([[0.0, 9.0, 1.0, 2.0, 8.0]])
    result = evaluate(lambda users: score, task, num_items=5, ks=(3,))
    assert result.topk.tolist() == [[3, 2, 0]]
    assert result.mean["coverage@3"] == 1


def test_several_targets_and_repeated_ones_are_counted_once():
    task = RankingTask(users=np.array([1]), seen=lists([]), targets=lists([2, 2, 3]))
    score = torch.tensor([[0.0, 1.0, 5.0, 0.0, 0.0]])
    result = evaluate(lambda users: score, task, num_items=5, ks=(1, 2))
    assert result.mean["recall@1"] == 0.5
    assert result.mean["ndcg@1"] == 1


def test_coverage_is_the_share_of_the_catalogue_that_is_recommended():
    task = RankingTask(users=np.array([1, 2]), seen=lists([], [4]), targets=lists([1], [1]))
    score = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]]).expand(2, -1)
    result = evaluate(lambda users: score[: len(users)], task, num_items=5, ks=(1, 2))
    assert result.mean["coverage@1"] == 2 / 4
    assert result.mean["coverage@2"] == 3 / 4


def on_ranks(world_size, task, block):
    """Evaluate on every rank, in threads; `gather` and `score` wait for all, as collectives do."""
    barrier = threading.Barrier(world_size, timeout=20)
    slots = [torch.empty(0)] * world_size
    calls = [[] for _ in range(world_size)]

    def one(rank):
        def gather(tensor):
            slots[rank] = tensor
            barrier.wait()
            assert len({slot.shape for slot in slots}) == 1
            gathered = torch.cat(slots)
            barrier.wait()
            return gathered

        def score(users):
            calls[rank].append(len(users))
            barrier.wait()
            return table_score()(users)

        return evaluate(
            score,
            task,
            num_items=NUM_ITEMS,
            block=block,
            rank=rank,
            world_size=world_size,
            gather=gather,
        )

    with ThreadPoolExecutor(world_size) as pool:
        results = list(pool.map(one, range(world_size)))
    return results, calls


@pytest.mark.parametrize(("world_size", "block"), [(2, 256), (2, 4), (3, 5), (7, 2)])
def test_several_ranks_equal_one(world_size, block):
    user, item, part = events()
    task = held_out_task(user, item, part, part_to_rank=2, num_users=24)
    assert len(task.users) % world_size != 0 or world_size == 2
    alone = evaluate(table_score(), task, num_items=NUM_ITEMS)
    results, calls = on_ranks(world_size, task, block)
    assert all(sizes == calls[0] for sizes in calls)
    for result in results:
        assert result.mean == alone.mean
        np.testing.assert_array_equal(result.topk, alone.topk)
        for name, values in alone.per_user.items():
            np.testing.assert_array_equal(result.per_user[name], values)


def test_more_ranks_than_users_is_fine():
    task = RankingTask(users=np.array([4]), seen=lists([1]), targets=lists([2]))
    results, calls = on_ranks(3, task, block=8)
    assert calls == [[1], [1], [1]]
    assert results[2].mean == evaluate(table_score(), task, num_items=NUM_ITEMS).mean


def test_users_keep_the_order_of_the_task():
    user, item, part = events()
    task = held_out_task(user, item, part, part_to_rank=2, num_users=24)
    turned = np.arange(len(task.users))[::-1]
    backwards = RankingTask(
        users=task.users[turned], seen=task.seen.take(turned), targets=task.targets.take(turned)
    )
    forward = evaluate(table_score(), task, num_items=NUM_ITEMS)
    result = evaluate(table_score(), backwards, num_items=NUM_ITEMS)
    np.testing.assert_array_equal(result.topk, forward.topk[::-1])
    np.testing.assert_array_equal(result.per_user["ndcg@20"], forward.per_user["ndcg@20"][::-1])


def test_the_scores_are_left_as_they_were():
    scores = torch.rand(1, NUM_ITEMS)
    before = scores.clone()
    task = RankingTask(users=np.array([1]), seen=lists([3]), targets=lists([2]))
    evaluate(lambda users: scores, task, num_items=NUM_ITEMS)
    assert torch.equal(scores, before)


def test_nan_scores_are_refused():
    task = RankingTask(users=np.array([8, 9]), seen=lists([], []), targets=lists([2], [2]))
    scores = torch.zeros(2, NUM_ITEMS)
    scores[1, 7] = torch.nan
    with pytest.raises(ValueError, match="nan for the user of row 9"):
        evaluate(lambda users: scores, task, num_items=NUM_ITEMS)


def test_scores_of_another_shape_are_refused():
    task = RankingTask(users=np.array([1]), seen=lists([]), targets=lists([2]))
    with pytest.raises(ValueError, match=r"gave \(1, 39\), expected \(1, 40\)"):
        evaluate(lambda users: torch.zeros(1, 39), task, num_items=NUM_ITEMS)


def test_a_part_without_users_is_a_mistake_of_the_data():
    task = RankingTask(users=np.zeros(0, dtype=np.int64), seen=lists(), targets=lists())
    with pytest.raises(UserError, match="no user has an item to find"):
        evaluate(table_score(), task, num_items=NUM_ITEMS)
