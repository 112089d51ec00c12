"""The configuration of a run, as a YAML file holds it: typed, frozen, unknown keys are errors."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from flm_torchrec.config_data import DataConfig
from flm_torchrec.config_text import TextConfig
from flm_torchrec.typed_yaml import Count, Positive, Rate, Share, Strict

ShardingName = Literal[
    "auto",
    "data_parallel",
    "table_wise",
    "column_wise",
    "row_wise",
    "table_row_wise",
    "table_column_wise",
    "grid_shard",
]


class HistoryConfig(Strict):
    """How a user's events become states: a causal transformer, a recency-weighted mean, or, where
    order must not matter, a set of all other events."""

    kind: Literal["causal", "mean", "set"] = "causal"
    told: bool = True  # read what each event told: its labels
    gaps: bool = False  # read the time since the event before; not with kind: set
    layers: Positive = 2  # not with kind: mean
    heads: Positive = 2  # not with kind: mean
    dropout: Share = 0.3

    @model_validator(mode="after")
    def _the_kind_reads_what_is_set(self) -> "HistoryConfig":
        if self.kind == "set" and self.gaps:
            raise ValueError(
                "gaps: true; between two events lies time only where they have an order; allowed "
                "with kind: set: false"
            )
        usual = {name: field.default for name, field in HistoryConfig.model_fields.items()}
        changed = [name for name in ("layers", "heads") if getattr(self, name) != usual[name]]
        if self.kind == "mean" and changed:
            raise ValueError(f"{changed[0]} has no effect with kind: mean")
        return self


class LinearConfig(Strict):
    """The next item by a linear model of the recency-weighted history, added to the scores: the
    ridge regression of each item on each, or two tables that are learned."""

    l2: Annotated[float, Field(gt=0)] = 450.0  # of the regression
    reverse: Rate = 0.5  # weight of the sequences read backwards, in the regression
    boost: Rate = 0.75  # added to the learned weight of the regression where nothing is trained
    rank: Count = 0  # width of the tables; 0: the regression

    @model_validator(mode="after")
    def _the_form_has_what_is_set(self) -> "LinearConfig":
        for name in ("l2", "reverse", "boost"):
            if self.rank and getattr(self, name) != LinearConfig.model_fields[name].default:
                raise ValueError(f"{name} has no effect with rank: {self.rank}")
        return self


class ViewsConfig(Strict):
    """The views and their fusion."""

    width: Positive = 64  # D
    fusion: Literal["mean", "weighted", "gated"] = "gated"
    view_dropout: Share = 0.2
    text: TextConfig | None = None
    history: HistoryConfig = HistoryConfig()
    linear: LinearConfig | None = None

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "ViewsConfig":
        if self.width % self.history.heads or self.width % 4:
            raise ValueError(
                f"width: {self.width} must be a multiple of 4 and of history.heads: "
                f"{self.history.heads}"
            )
        return self


class RankConfig(Strict):
    """Softmax over the items at every step of a window, or over what was shown."""

    weight: Rate = 1.0


class FuseConfig(Strict):
    """Each view alone learns to rank as all together do."""

    weight: Rate = 0.1


class OrderConfig(Strict):
    """Of two items the one that is truly better for the user scores above."""

    weight: Rate = 1.0
    by: Literal["sampled", "label", "time"] = "sampled"  # met over not, higher over lower, earlier
    label: str | None = None  # with by: label

    @model_validator(mode="after")
    def _a_label_orders(self) -> "OrderConfig":
        if (self.by == "label") != (self.label is not None):
            lacks = "needs a label" if self.label is None else f"reads no label: {self.label}"
            raise ValueError(f"by: {self.by} {lacks}")
        return self


class AlignConfig(Strict):
    """InfoNCE between every two views of an item, and between a user and an item met."""

    weight: Rate = 0.1
    items: Positive = 256  # items aligned a step, over all ranks
    edges: Count = 0  # interactions aligned a step, over all ranks; 0: none
    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.1


class MLMConfig(Strict):
    """Masked language model on the texts of items and corpus."""

    weight: Rate = 0.1
    texts: Positive = 16  # texts masked a step, over all ranks


class CLMConfig(Strict):
    """Causal language model on the texts of items and corpus, of an encoder that is a decoder."""

    weight: Rate = 0.1
    texts: Positive = 16  # texts a step, over all ranks


class ClozeConfig(Strict):
    """A whole attribute of items is hidden, and told from all else."""

    weight: Rate = 0.1
    attribute: str  # a categorical or multi feature of the items
    items: Positive = 256  # items a step, over all ranks


class ItemClozeConfig(Strict):
    """Events of histories are hidden, and found among the items by all other events."""

    weight: Rate = 0.1
    share: Annotated[float, Field(gt=0, lt=1)] = 0.15  # of the events of a window


class HeadsConfig(Strict):
    """One head a label over one bottom, or over experts that each label mixes."""

    weight: Rate = 1.0
    weights: dict[str, Rate] = {}  # by label, in place of `weight`
    cross: Literal["none", "fm", "dcn"] = "none"  # what the features make together
    bottom: Literal["shared", "mmoe", "ple"] = "shared"
    experts: Positive = 4  # of mmoe; of ple those that the labels share
    own_experts: Positive = 1  # of ple, of each label
    layers: Positive = 1  # of ple
    hidden: Count = 128  # 0: no hidden layer, a linear one alone
    width: Positive = 64
    dropout: Share = 0.2
    adapter: Count = 0  # width of the bottleneck of each label's residual adapter; 0: none
    biases: list[str] = []  # labels that have a bias of each user, item and feature
    l2: Rate = 0.0  # on the features' embeddings of an edge, beside the loss of each label
    factors: Count = 0  # width of a factorisation of the labels that the heads read; 0: none
    joint: list[str] = []  # labels learned with the one that their `where` names, on all edges

    @model_validator(mode="after")
    def _the_bottom_has_what_is_set(self) -> "HeadsConfig":
        has = {"shared": (), "mmoe": ("experts",), "ple": ("experts", "own_experts", "layers")}
        usual = {name: field.default for name, field in HeadsConfig.model_fields.items()}
        for name in ("experts", "own_experts", "layers"):
            if getattr(self, name) != usual[name] and name not in has[self.bottom]:
                raise ValueError(f"{name} has no effect with bottom: {self.bottom}")
        if not self.hidden and self.dropout != usual["dropout"]:
            raise ValueError("dropout has no effect with hidden: 0")
        return self


class TasksConfig(Strict):
    """What is trained; a task that isn't named is off."""

    rank: RankConfig | None = None
    fuse: FuseConfig | None = None
    order: OrderConfig | None = None
    align: AlignConfig | None = None
    mlm: MLMConfig | None = None
    clm: CLMConfig | None = None
    cloze: ClozeConfig | None = None
    item_cloze: ItemClozeConfig | None = None
    heads: HeadsConfig | None = None
    balance: Literal["fixed", "uncertainty", "gradnorm", "pcgrad"] = "fixed"  # of all losses

    @model_validator(mode="after")
    def _has_a_task(self) -> "TasksConfig":
        names = [name for name in type(self).model_fields if name != "balance"]
        if all(getattr(self, name) is None for name in names):
            raise ValueError(f"no task is on: name at least one of {', '.join(names)}")
        return self


class DenseConfig(Strict):
    """AdamW for everything but the tables; warm-up, then a cosine down to 0."""

    lr: Rate = 2e-3
    text_lr: Rate = 5e-5  # of the text encoder
    weight_decay: Rate = 0.01
    warmup: Count = 50  # steps


class SparseConfig(Strict):
    """The tables' optimizer, run inside backward, and in how many bytes rows are kept and sent."""

    optimizer: Literal[
        "rowwise_adagrad", "adagrad", "sgd", "adam", "partial_rowwise_adam", "lamb"
    ] = "rowwise_adagrad"
    lr: Rate = 0.05
    decay: bool = False  # scaled as the dense rate is, warm-up and cosine; else constant
    dtype: Literal["fp32", "fp16"] = "fp32"  # of rows; what is looked up is fp32
    communication: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"  # of rows between ranks


class TrainConfig(Strict):
    """How long and how fast."""

    steps: Positive
    seed: Count = 0
    dense: DenseConfig = DenseConfig()
    sparse: SparseConfig = SparseConfig()
    checkpoint_every: Positive = 500  # steps
    keep: Positive = 2  # checkpoints
    log_every: Positive = 10  # steps
    validate_every: Count = 0  # steps; 0: not while training
    timeout: Positive = 1800  # seconds that a rank waits for another before it gives up
    allow_unpipelined: bool = False  # go on where ids can't be exchanged ahead of their step


class RunConfig(Strict):
    """A run."""

    data: DataConfig
    views: ViewsConfig = ViewsConfig()
    tasks: TasksConfig
    train: TrainConfig
    sharding: dict[str, ShardingName] = {"default": "auto"}  # by table, or `default`
    calibration: Path | None = None  # a file of `flm plan calibrate`, by which `auto` plans
    init: Path | None = None  # a run, or one of its checkpoints, to start from

    @model_validator(mode="after")
    def _texts_have_an_encoder(self) -> "RunConfig":
        if self.tasks.mlm is not None and self.views.text is None:
            raise ValueError("tasks.mlm needs views.text, which is missing")
        if self.tasks.clm is not None and (self.views.text is None or self.views.text.rows == 0):
            raise ValueError("tasks.clm needs views.text in mode last_n or full")
        return self

    @model_validator(mode="after")
    def _fusion_has_a_teacher(self) -> "RunConfig":
        if self.tasks.fuse is not None and self.tasks.rank is None:
            raise ValueError("tasks.fuse teaches what tasks.rank learns, which is missing")
        return self

    @model_validator(mode="after")
    def _linear_path_ranks(self) -> "RunConfig":
        if self.views.linear is not None and self.tasks.rank is None:
            raise ValueError("views.linear is added to the scores of tasks.rank, which is missing")
        return self

    @model_validator(mode="after")
    def _resume_sees_the_same_text(self) -> "RunConfig":
        text, every = self.views.text, self.train.checkpoint_every
        if text is not None and text.mode != "frozen" and every % text.refresh:
            raise ValueError(
                f"train.checkpoint_every: {every} must be a multiple of views.text.refresh: "
                f"{text.refresh}, so that a resumed run has the text vectors of one that went on"
            )
        return self
