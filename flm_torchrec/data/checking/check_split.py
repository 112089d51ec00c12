"""Which interactions a split leaves for training, and whether it can be made."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.checking.findings import Findings
from flm_torchrec.data.dataset import PART_NAMES, TRAIN
from flm_torchrec.data.preparing.split import split_parts
from flm_torchrec.data.preparing.split_file import Facts, read_split
from flm_torchrec.data.schema import Split
from flm_torchrec.errors import UserError


def training_rows(facts: Facts, file: Path, rule: Split, found: Findings) -> NDArray[np.bool_]:
    """(n,) which rows are for training by the split's `file`, if there is one, or else by its rule,
    as far as the facts tell; all where they don't."""
    keys = facts.keys()
    everything = np.ones(keys.num_rows, bool)
    # With rows that cannot be read the file cannot be compared, and they are told anyway.
    is_there = file.exists() and not found.problems
    if rule.kind == "leave_one_out" and keys.by_user is None:
        return everything
    try:
        part = read_split(file, rule, facts) if is_there else split_parts(keys, rule)
    except UserError as error:
        found.problems.append(str(error))
        return everything
    if rule.kind in ("item_cold", "user_cold") and not is_there:
        # They are drawn by the order of their ids, which is not known here.
        return everything
    counts = np.bincount(part, minlength=len(PART_NAMES)).tolist()
    sizes = [f"{name} {size:,}" for name, size in zip(PART_NAMES, counts, strict=True)]
    found.facts.append(f"split {rule.kind}: {', '.join(sizes)}")
    return part == TRAIN
