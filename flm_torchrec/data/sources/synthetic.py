"""Synthetic data with a planted structure, and beside it what a perfect model would reach.

`truth.json` holds the best AUC of each binary label (that of the probabilities which the labels
were drawn by) over all rows and over the test part of the default split, and what was planted.
"""

import json
from pathlib import Path
from typing import Literal, get_args

from flm_torchrec.data.sources.folder import new_folder
from flm_torchrec.data.sources.synthetic_context import write_context
from flm_torchrec.data.sources.synthetic_impressions import write_impressions
from flm_torchrec.data.sources.synthetic_sequence import write_sequence
from flm_torchrec.errors import UserError

Kind = Literal["sequence", "impressions", "context"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_USERS, _ITEMS = 1000, 500


def write_synthetic(
    out: Path | str,
    *,
    kind: Kind,
    interactions: int,
    users: int | None = None,
    items: int | None = None,
    seed: int = 0,
) -> None:
    """Write the data folder `out`; equal arguments give equal data.

    `sequence`: what users took and rated, the next by the latest; `impressions`: what users were
    shown, clicked and bought (like Ali-CCP's); `context`: clicks without users or items (Criteo's).
    """
    given = {"users": users, "items": items, "interactions": interactions}
    for name, count in given.items():
        if count is not None and count < 1:
            raise UserError(f"{name}: {count}; allowed: 1 or more")
        if count is not None and kind == "context" and name != "interactions":
            raise UserError(f"{name}: {count}; the kind 'context' has no {name}")
    if seed < 0:
        raise UserError(f"seed: {seed}; allowed: 0 or more")
    entities = {"users": users or _USERS, "items": items or _ITEMS}
    with new_folder(out) as folder:
        if kind == "context":
            found = write_context(folder, interactions=interactions, seed=seed)
        elif kind == "impressions":
            found = write_impressions(folder, **entities, interactions=interactions, seed=seed)
        else:
            found = write_sequence(folder, **entities, interactions=interactions, seed=seed)
        truth = {"kind": kind, "seed": seed, **found}
        (folder.path / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")
