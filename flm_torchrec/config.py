"""The configuration of a run, as a YAML file holds it: typed, frozen, unknown keys are errors."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from flm_torchrec.typed_yaml import Strict

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0)]
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


class DataConfig(Strict):
    """Which data, and how much of it a step sees."""

    path: str  # a folder that `flm data prepare` can read, here or wherever fsspec reaches
    users: Positive = 16  # U: users a step, over all ranks; with order: by_user
    rows: Positive = 4096  # E: interactions a step, over all ranks; with order: by_log
    window: Count = 64  # L: events of each user a step; 0: no histories
    reverse: Share = 0.25  # share of the windows that run backwards in time; with order: by_user
    negatives: Literal["all"] | Positive = "all"  # N
    negative_source: Literal["popular", "in_batch", "mixed"] = "popular"  # of N negatives
    negative_power: Rate = 0.5  # popular: proportional to popularity ** power; 0: uniform
    workers: Count = 1  # threads a rank that make batches; 0: the one that trains

    @model_validator(mode="after")
    def _negatives_are_drawn_somehow(self) -> "DataConfig":
        is_usual = self.negative_power == DataConfig.model_fields["negative_power"].default
        if self.negatives == "all" and not (self.negative_source == "popular" and is_usual):
            raise ValueError(
                "negative_source and negative_power have no effect with negatives: all; "
                "allowed with them: a number of negatives"
            )
        if self.negative_source == "in_batch" and not is_usual:
            raise ValueError("negative_power has no effect with negative_source: in_batch")
        return self


class TextConfig(Strict):
    """The text view."""

    encoder: str  # a folder, an installed package that holds one, or a Hugging Face id
    mode: Literal["frozen", "last_n", "full"] = "frozen"
    last: Positive = 1  # layers that train in mode last_n
    rows: Count = 0  # K: texts a step encoded with gradient, over all ranks
    max_tokens: Positive = 64
    refresh: Positive = 500  # steps after which the cached vectors of a trained encoder are renewed

    @model_validator(mode="after")
    def _rows_fit_the_mode(self) -> "TextConfig":
        if (self.rows > 0) == (self.mode == "frozen"):
            need = "needs rows: 0" if self.mode == "frozen" else "needs rows above 0"
            raise ValueError(f"mode: {self.mode} {need}, got rows: {self.rows}")
        return self


class HistoryConfig(Strict):
    """The causal transformer over a user's events."""

    layers: Positive = 2
    heads: Positive = 2
    dropout: Share = 0.3


class ViewsConfig(Strict):
    """The views and their fusion."""

    width: Positive = 64  # D
    fusion: Literal["mean", "weighted", "gated"] = "gated"
    view_dropout: Share = 0.2
    text: TextConfig | None = None
    history: HistoryConfig = HistoryConfig()

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


class AlignConfig(Strict):
    """InfoNCE between every two views of an item."""

    weight: Rate = 0.1
    items: Positive = 256  # items aligned a step
    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.1


class MLMConfig(Strict):
    """Masked language model on the texts of items and corpus."""

    weight: Rate = 0.1
    texts: Positive = 16  # texts masked a step, over all ranks


class HeadsConfig(Strict):
    """One head a label over a shared bottom."""

    weight: Rate = 1.0
    weights: dict[str, Rate] = {}  # by label, in place of `weight`
    cross: Literal["none", "fm", "dcn"] = "none"  # what the features make together
    hidden: Positive = 128
    width: Positive = 64
    dropout: Share = 0.2


class TasksConfig(Strict):
    """What is trained; a task that isn't named is off."""

    rank: RankConfig | None = None
    align: AlignConfig | None = None
    mlm: MLMConfig | None = None
    heads: HeadsConfig | None = None

    @model_validator(mode="after")
    def _has_a_task(self) -> "TasksConfig":
        if not any((self.rank, self.align, self.mlm, self.heads)):
            raise ValueError("no task is on: name at least one of rank, align, mlm, heads")
        return self


class DenseConfig(Strict):
    """AdamW for everything but the tables; warm-up, then a cosine down to 0."""

    lr: Rate = 2e-3
    text_lr: Rate = 5e-5  # of the text encoder
    weight_decay: Rate = 0.01
    warmup: Count = 50  # steps


class SparseConfig(Strict):
    """The tables' optimizer, run inside backward at a constant rate."""

    optimizer: Literal[
        "rowwise_adagrad", "adagrad", "sgd", "adam", "partial_rowwise_adam", "lamb"
    ] = "rowwise_adagrad"
    lr: Rate = 0.05


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


class RunConfig(Strict):
    """A run."""

    data: DataConfig
    views: ViewsConfig = ViewsConfig()
    tasks: TasksConfig
    train: TrainConfig
    sharding: dict[str, ShardingName] = {"default": "auto"}  # by table, or `default`
    init: Path | None = None  # a run, or one of its checkpoints, to start from

    @model_validator(mode="after")
    def _texts_have_an_encoder(self) -> "RunConfig":
        if self.tasks.mlm is not None and self.views.text is None:
            raise ValueError("tasks.mlm needs views.text, which is missing")
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
