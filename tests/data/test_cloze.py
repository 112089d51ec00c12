from dataclasses import replace

import numpy as np
import tiny
from small_data import write_folder

from flm_torchrec.data.cloze import AttributeCloze
from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import Column
from flm_torchrec.data.negatives import AllItems
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.preparing.hidden_texts import texts_without
from flm_torchrec.data.sampling import histories

ITEMS = tiny.dataset().items
assert ITEMS is not None


def cloze(*, count: int = 3) -> AttributeCloze:
    return AttributeCloze(ITEMS, "genres", count=count)


def test_items_with_the_attribute_are_asked_for_but_for_a_tenth():
    made = cloze()
    has_it = [item for item, genres in enumerate(tiny.GENRES) if genres]
    assert sorted([*made.pool, *made.held_out]) == has_it
    assert len(made.held_out) == 1
    assert set(made.draw(np.random.default_rng(0), rank=0, world_size=1)) <= set(made.pool)


def test_ranks_share_what_all_draw():
    whole = cloze(count=4).draw(np.random.default_rng(0), rank=0, world_size=1)
    parts = [
        cloze(count=2).draw(np.random.default_rng(0), rank=rank, world_size=2) for rank in (0, 1)
    ]
    assert np.stack(parts, axis=1).reshape(-1).tolist() == whole.tolist()


def test_hidden_items_stand_behind_the_others_without_their_attribute():
    dataset = tiny.dataset()
    events = histories(dataset.interactions, before_part=1)
    collator = Collator(
        dataset, events, window=3, negatives=AllItems(num_items=9), text=None, cloze=cloze()
    )
    items = collator.batch(np.array([0, 1]), events, rng_key=(0, 2, 0)).items
    assert items is not None
    hidden = items.cloze.item.tolist()
    assert len(hidden) == 3
    assert items.row.tolist() == list(range(9))
    assert items.features.stride() == items.numbers.shape[0] == 12
    assert items.features["item_id"].values()[-3:].tolist() == [i if i < 8 else 0 for i in hidden]
    genres = items.features["genres"]
    assert genres.lengths().tolist() == [*(len(row) for row in tiny.GENRES), 0, 0, 0]
    values = [[value for value in row if value] for row in items.cloze.target.tolist()]
    assert values == [list(tiny.GENRES[item]) for item in hidden]


def test_an_attribute_of_one_value_is_hidden_too():
    column = Column(values=np.array([0, 2, 1, 0, 1, 2, 1, 2, 1]), offsets=None, num_embeddings=3)
    made = AttributeCloze(
        replace(ITEMS, columns={**ITEMS.columns, "maker": column}), "maker", count=2
    )
    items = made.alone(np.array([1, 2]), hide_id=False)
    assert items.features["maker"].lengths().tolist() == [0, 0]
    assert items.features["item_id"].values().tolist() == [1, 2]
    assert items.features["genres"].lengths().tolist() == [1, 2]
    assert items.cloze.target.tolist() == [[2], [1]]
    blind = made.alone(np.array([1, 2]), hide_id=True)
    assert blind.features["item_id"].lengths().tolist() == [0, 0]


def test_texts_leave_the_attribute_out(tmp_path):
    folder = write_folder(tmp_path)
    dataset = prepare(folder)
    assert dataset.items is not None
    assert dataset.items.text["title"][1:4] == ["One (1990). a, b", "Two (2000). b", "Three. c"]
    texts = texts_without(folder, dataset, "genres")["title"]
    assert texts == [
        "",
        "One (1990).",
        "Two (2000).",
        "Three.",
        "Four, The (2010).",
        "Five (2020).",
        "Six (2030).",
    ]
    assert texts_without(folder, dataset, "maker") == dataset.items.text
