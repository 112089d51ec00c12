"""The text view of a run's configuration."""

from typing import Literal

from pydantic import model_validator

from flm_torchrec.typed_yaml import Count, Positive, Strict


class TextConfig(Strict):
    """The text view."""

    encoder: str  # a folder, an installed package that holds one, or a Hugging Face id
    mode: Literal["frozen", "last_n", "lora", "adalora", "adapter", "full"] = "frozen"
    last: Positive = 1  # layers that train in mode last_n
    rank: Positive = 8  # of what mode lora adds, and what adalora leaves of it on average
    rows: Count = 0  # K: texts a step encoded with gradient, over all ranks
    max_tokens: Positive = 64
    refresh: Positive = 500  # steps after which the cached vectors of a trained encoder are renewed
    micro_batch: Count = 0  # texts of a rank in memory at once, run again in backward; 0: all
    precision: Literal["fp32", "bf16"] = "fp32"  # in which the encoder computes

    @model_validator(mode="after")
    def _rows_fit_the_mode(self) -> "TextConfig":
        if (self.rows > 0) == (self.mode == "frozen"):
            need = "needs rows: 0" if self.mode == "frozen" else "needs rows above 0"
            raise ValueError(f"mode: {self.mode} {need}, got rows: {self.rows}")
        ways = {"micro_batch": self.mode != "frozen", "last": self.mode == "last_n"}
        ways["rank"] = self.mode in ("lora", "adalora")
        for name, has_effect in ways.items():
            if getattr(self, name) != TextConfig.model_fields[name].default and not has_effect:
                raise ValueError(f"{name} has no effect with mode: {self.mode}")
        return self
