import threading

import numpy as np
import pytest
import tiny
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.collate import Collator
from flm_torchrec.data.loader import load
from flm_torchrec.data.negatives import PopularItems
from flm_torchrec.data.sampling import LogSampler, UserSampler, histories, sequences

DATASET = tiny.dataset()
INTERACTIONS = DATASET.interactions
TRAIN = np.flatnonzero(INTERACTIONS.part == 0)
SAMPLERS = {
    "by_user": UserSampler(
        sequences(INTERACTIONS, before_part=1), users=2, window=3, reverse=0.5, seed=3
    ),
    "by_log": LogSampler(TRAIN, batch=4, run=2, seed=3),
}
COLLATOR = Collator(
    DATASET,
    histories(INTERACTIONS, before_part=1),
    window=3,
    negatives=PopularItems(np.bincount(INTERACTIONS.item, minlength=9), count=5, power=0.5),
    text=None,
)


def leaves(value) -> list:
    """Every tensor below a batch, as lists."""
    if isinstance(value, torch.Tensor):
        # NaN equals nothing: it stands as a number that no batch holds.
        return [value.nan_to_num(-77.0).tolist()]
    if isinstance(value, KeyedJaggedTensor):
        return [value.keys(), value.values().tolist(), value.lengths().tolist()]
    fields = getattr(value, "__dataclass_fields__", {})
    return [leaf for name in fields for leaf in leaves(getattr(value, name))]


@pytest.mark.parametrize("order", SAMPLERS)
def test_workers_make_the_batches_of_this_process_in_their_order(order):
    def make(step):
        return COLLATOR.step(SAMPLERS[order], step)

    expected = [leaves(make(step)) for step in range(2, 9)]
    for workers in (0, 1, 2):
        found = [leaves(batch) for batch in load(make, start=2, stop=9, workers=workers)]
        assert found == expected


def test_an_error_of_a_worker_reaches_the_caller():
    def make(step):
        if step == 3:
            raise ValueError("step 3")
        return step

    with pytest.raises(ValueError, match="step 3"):
        list(load(make, start=0, stop=9, workers=2))


def test_workers_stop_when_nobody_asks_any_more():
    made = []
    batches = load(lambda step: made.append(step) or step, start=0, stop=1000, workers=2)
    assert next(batches) == 0
    batches.close()
    assert len(made) < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
