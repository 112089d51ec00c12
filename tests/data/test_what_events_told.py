"""What events told, and what a window holds beside them."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from flm_torchrec.data.collate import Collator
from flm_torchrec.data.negatives import AllItems
from flm_torchrec.data.sampling import Windows, histories, sequences
from flm_torchrec.data.schema import Schema
from flm_torchrec.data.told import scaled_labels

DATASET = tiny.dataset()
SEQS = sequences(DATASET.interactions, before_part=1)
EVENTS = histories(DATASET.interactions, before_part=1)
USERS = np.array([1, 4])
# User 1 meets 3, 4, 5 and had met 1, 2; user 4 meets 5, 6, 7 and had met 4.
TWO = Windows(
    user=USERS,
    first=np.array([2, 1]),
    length=np.array([3, 3]),
    total=SEQS.offsets[USERS + 1] - SEQS.offsets[USERS],
    is_reversed=np.zeros(2, dtype=bool),
)


def test_what_a_window_holds_beside_events_is_known_too():
    log = DATASET.interactions
    events = np.flatnonzero((log.user != 1) | (log.item != 4))
    dataset = replace(DATASET, interactions=replace(log, events=events))
    made = Collator(dataset, EVENTS, window=3, negatives=AllItems(num_items=9), text=None)
    users = made.batch(TWO, SEQS, rng_key=(0, 2, 0)).users
    assert users.history.tolist() == [[3, 5, 0], [5, 6, 7]]
    known = zip(users.known_user.tolist(), users.known_item.tolist(), strict=True)
    assert set(known) == {(0, 1), (0, 2), (0, 4), (1, 4)}


def test_a_class_is_its_place_among_those_of_training():
    schema = DATASET.schema.model_dump(mode="json")
    schema["interactions"]["labels"] = {"type": {"kind": "multiclass"}}
    labels = {"type": np.array([10, 500, 20, 30, np.nan], dtype=np.float32)}
    dataset = replace(
        DATASET,
        schema=Schema.model_validate(schema),
        interactions=replace(DATASET.interactions, labels=labels),
        levels={"type": np.array([10, 20, 500], dtype=np.float32)},
    )
    found = scaled_labels(dataset, np.arange(5))[:, 0]
    assert found.tolist() == pytest.approx([0, 2, 1, np.nan, np.nan], nan_ok=True)
