"""A configuration and its data become the encoder of histories."""

from typing import Any

from flm_torchrec.build_data import any_order, window_of
from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.errors import UserError
from flm_torchrec.views.history import CausalHistory, History
from flm_torchrec.views.mean_history import MeanHistory
from flm_torchrec.views.set_history import SetHistory


def build_history(config: RunConfig, dataset: Dataset) -> History | None:
    """The encoder that `views.history` names; None where the data have no users or histories."""
    window, history = window_of(config, dataset), config.views.history
    if dataset.users is None or not window:
        return None
    if any_order(config, dataset):
        _check_any_order(config, dataset)
    given: dict[str, Any] = {"event_width": 0, "dropout": history.dropout}
    if history.told:
        width = len(dataset.interactions.labels)
        given |= {"event_width": width, "classes": _classes(dataset)}
    dim, layers, heads = config.views.width, history.layers, history.heads
    if history.kind == "mean":
        return MeanHistory(dim, window=window, gaps=history.gaps, **given)
    if history.kind == "set":
        return SetHistory(dim, layers=layers, heads=heads, **given)
    hides = config.tasks.item_cloze is not None
    return CausalHistory(
        dim, window=window, gaps=history.gaps, layers=layers, heads=heads, hides=hides, **given
    )


def _classes(dataset: Dataset) -> dict[int, int]:
    """Of the labels that are classes: place -> how many training has."""
    schema = dataset.schema.interactions
    declared = {} if schema is None else schema.labels
    return {
        place: len(dataset.levels[name])
        for place, (name, label) in enumerate(declared.items())
        if label.kind == "multiclass"
    }


def _check_any_order(config: RunConfig, dataset: Dataset) -> None:
    """Raise UserError where states that know all other events must not rank."""
    split, schema, on = dataset.schema.split_rule().kind, dataset.schema.interactions, config.tasks
    assert schema is not None
    ranking = [name for name, task in (("rank", on.rank), ("order", on.order)) if task is not None]
    if ranking and split not in ("random", "item_cold"):
        raise UserError(
            f"views.history.kind: set; tasks.{ranking[0]} would rank what a user met by what came "
            f"after it, and the split is {split}; allowed: causal or mean, or split: random or "
            "item_cold"
        )
    if ranking and schema.negatives == "logged":
        raise UserError(
            f"views.history.kind: set; tasks.{ranking[0]} would rank what was shown by what was "
            "taken of it, since negatives are logged; allowed: causal or mean"
        )
    for name, usual in (("shuffle_ties", False), ("ahead", 1)):
        if (value := getattr(config.data, name)) != usual:
            raise UserError(
                f"data.{name}: {value}; with views.history.kind: set an item is foretold by all "
                f"other events, in no order; allowed: {usual}, or kind: causal or mean"
            )
    linear = config.views.linear
    if linear is not None and linear.rank:
        raise UserError(
            f"views.linear.rank: {linear.rank}; its two tables weigh events by how long ago they "
            "were, which views.history.kind: set does not know; allowed: 0, or kind: causal or mean"
        )
