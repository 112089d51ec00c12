"""A configuration and its data become the tasks that need no head."""

from collections.abc import Callable
from functools import partial

from torch import nn

from flm_torchrec.build_data import any_order, items_to_hide_of
from flm_torchrec.config import OrderConfig, RunConfig
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.errors import UserError
from flm_torchrec.model import FLM
from flm_torchrec.tasks.alignment import Alignment
from flm_torchrec.tasks.balance import Gather
from flm_torchrec.tasks.cloze import ClozeTask
from flm_torchrec.tasks.fusion_loss import FusionLoss, LoggedFusionLoss
from flm_torchrec.tasks.item_cloze import ItemCloze
from flm_torchrec.tasks.mlm import CausalLM, MaskedLM
from flm_torchrec.tasks.pairwise import LabelOrder, SampledOrder, TimeOrder
from flm_torchrec.tasks.ranking import LoggedRanking, Ranking

Weighted = tuple[nn.Module, float]


def pretraining_tasks(
    config: RunConfig, dataset: Dataset, flm: FLM, *, gather: Gather
) -> dict[str, Weighted]:
    """Those that are on, each with its weight; `gather` brings together what all ranks have of a
    tensor, with its gradient."""
    on = config.tasks
    tasks: dict[str, Weighted] = {}
    if on.rank is not None:
        tasks["rank"] = _ranking(dataset, flm), on.rank.weight
    if on.fuse is not None:
        tasks["fuse"] = _fusion_loss(dataset, flm), on.fuse.weight
    if on.order is not None:
        tasks["order"] = _order(config, on.order, dataset, flm), on.order.weight
    if on.align is not None:
        if on.align.edges:
            _need_users_and_items("align.edges", flm)
        else:
            _need_two_views("align", flm)
        task = Alignment(temperature=on.align.temperature, gather=gather)
        tasks["align"] = task, on.align.weight
    if on.mlm is not None:
        tasks["mlm"] = _masked_lm(flm), on.mlm.weight
    if on.clm is not None:
        tasks["clm"] = _causal_lm(flm), on.clm.weight
    if on.cloze is not None:
        tasks["cloze"] = _cloze(on.cloze.attribute, dataset, flm), on.cloze.weight
    if on.item_cloze is not None:
        tasks["item_cloze"] = _item_cloze(config, dataset, flm, gather), on.item_cloze.weight
    return tasks


def _need_two_views(task: str, flm: FLM) -> None:
    if len(flm.view_names) < 2:
        raise UserError(
            f"tasks.{task}: needs two views of an item, the data has {list(flm.view_names)}; "
            "allowed: with views.text over items.text, or with a vector in items.features"
        )


def _need_users_and_items(task: str, flm: FLM) -> None:
    for name, view in (("user", flm.user_view), ("item", flm.item_view)):
        if view is None:
            raise UserError(
                f"tasks.{task}: the data has no {name}s; allowed: with interactions.{name}"
            )


def _ranked(
    dataset: Dataset, logged: Callable[[], nn.Module], kind: Callable[..., nn.Module]
) -> nn.Module:
    """`logged()` where negatives are logged, else a `kind` that masks what may not come again."""
    schema = dataset.schema.interactions
    assert schema is not None
    return logged() if schema.negatives == "logged" else kind(mask_seen=not schema.repeats)


def _ranking(dataset: Dataset, flm: FLM) -> nn.Module:
    _need_users_and_items("rank", flm)
    return _ranked(dataset, LoggedRanking, Ranking)


def _fusion_loss(dataset: Dataset, flm: FLM) -> nn.Module:
    _need_two_views("fuse", flm)
    assert flm.fusion is not None
    fuse = flm.fusion.of_present if flm.fusion.view_dropout > 0 else None
    kinds = (partial(kind, fuse=fuse) for kind in (LoggedFusionLoss, FusionLoss))
    return _ranked(dataset, *kinds)


def _masked_lm(flm: FLM) -> MaskedLM:
    text = flm.text_view
    assert text is not None
    if text.last_token:
        raise UserError("tasks.mlm: the encoder is a decoder, as GPT is; allowed: tasks.clm")
    return MaskedLM(hidden=text.hidden, vocabulary=text.token_embedding().shape[0])


def _causal_lm(flm: FLM) -> CausalLM:
    assert flm.text_view is not None
    if not flm.text_view.last_token:
        raise UserError("tasks.clm: the encoder is no decoder, as GPT is; allowed: tasks.mlm")
    return CausalLM()


def _cloze(attribute: str, dataset: Dataset, flm: FLM) -> ClozeTask:
    column = items_to_hide_of(dataset, attribute).columns[attribute]
    assert flm.item_view is not None
    return ClozeTask(
        dim=flm.item_view.dim,
        num_values=column.num_embeddings - 1,
        several=column.offsets is not None,
    )


def _item_cloze(config: RunConfig, dataset: Dataset, flm: FLM, gather: Gather) -> ItemCloze:
    _need_users_and_items("item_cloze", flm)
    schema, kind = dataset.schema.interactions, config.views.history.kind
    assert schema is not None
    if schema.negatives == "logged":
        raise UserError(
            "tasks.item_cloze: finds an event among sampled items; the schema says negatives: "
            "logged; allowed: without the task"
        )
    if not flm.hides_events:
        what = "the data has no history" if flm.history is None else f"views.history.kind: {kind}"
        raise UserError(f"tasks.item_cloze: {what}; allowed: a history of kind: causal")
    return ItemCloze(mask_seen=not schema.repeats, gather=gather)


def _order(config: RunConfig, order: OrderConfig, dataset: Dataset, flm: FLM) -> nn.Module:
    _need_users_and_items("order", flm)
    schema = dataset.schema.interactions
    assert schema is not None
    if order.by == "sampled":
        if schema.negatives == "logged":
            raise UserError(
                "tasks.order.by: sampled; the schema says negatives: logged, so none are sampled; "
                "allowed: label"
            )
        return SampledOrder()
    if any_order(config, dataset):
        raise UserError(
            f"tasks.order.by: {order.by}; with views.history.kind: set no state is before two "
            "events; allowed: sampled"
        )
    if order.by == "time":
        if schema.order == "by_log":
            raise UserError(
                "tasks.order.by: time; in data with order: by_log no state is before two times; "
                "allowed: label, sampled, or order: by_user"
            )
        return TimeOrder()
    labels = list(dataset.interactions.labels)
    if order.label not in labels:
        raise UserError(f"tasks.order.label: {order.label!r}; no such label; allowed: {labels}")
    return LabelOrder(label=labels.index(order.label))
