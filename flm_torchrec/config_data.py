"""The `data` of a run's configuration."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from flm_torchrec.typed_yaml import Count, Positive, Rate, Share, Strict

Above0 = Annotated[float, Field(gt=0)]


class DataConfig(Strict):
    """Which data, and how much of it a step sees."""

    # A folder that `flm data prepare` can read, here or wherever fsspec reaches; or several.
    path: str | None = None
    domains: dict[str, str] = {}  # in place of `path`: the folder of each domain by its name
    temperature: Above0 = 1.0  # of domains: a step's users come by (interactions) ** (1 / this)
    shared_heads: bool = True  # of domains: labels of one name have one head
    users: Positive = 16  # U: users a step, over all ranks; with order: by_user
    rows: Positive = 4096  # E: interactions a step, over all ranks; with order: by_log
    window: Count = 64  # L: events of each user a step; 0: no histories
    reverse: Share = 0.25  # share of the windows that run backwards in time; with order: by_user
    # With order: by_user. Events of one second come in a new order each time; an item is foretold
    # from up to so many events before it; a share of the users a step has no id, as new ones have.
    shuffle_ties: bool = False
    ahead: Positive = 1
    hide_users: Share = 0.0
    negatives: Literal["all"] | Positive = "all"  # N
    negative_source: Literal["popular", "in_batch", "mixed"] = "popular"  # of N negatives
    negative_power: Rate = 0.5  # popular: proportional to popularity ** power; 0: uniform
    workers: Count = 1  # threads a rank that make batches; 0: the one that trains

    @property
    def folders(self) -> dict[str, str]:
        """By domain; the one of `path` under ""."""
        return self.domains if self.path is None else {"": self.path}

    @property
    def home(self) -> str:
        """The folder beside which a run keeps what it works out of all its data."""
        return next(iter(self.folders.values()))

    @model_validator(mode="after")
    def _is_one_folder_or_several(self) -> "DataConfig":
        if (self.path is None) == (not self.domains):
            has = "neither is there" if self.path is None else "both are there"
            raise ValueError(f"path or domains: {has}; allowed: one of the two")
        for name in self.domains:
            # The first part of the names of tables, up to the underscore.
            if not (name.isascii() and name.isalnum()):
                raise ValueError(f"domains: {name!r}; allowed: names of letters and digits alone")
        usual = {name: field.default for name, field in DataConfig.model_fields.items()}
        for name in ("temperature", "shared_heads"):
            if not self.domains and getattr(self, name) != usual[name]:
                raise ValueError(f"{name} has no effect without domains")
        return self

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
