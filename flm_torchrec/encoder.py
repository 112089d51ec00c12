"""The pretrained text encoder that a configuration names, and the data's texts in its tokens."""

from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as CAUSAL_LMS
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING as MASKED_LMS

from flm_torchrec.config import TextConfig
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.text import Texts, held_out_texts, tokenise
from flm_torchrec.errors import UserError
from flm_torchrec.views.adapters import add_adapters
from flm_torchrec.views.rank_allocation import RankAllocation
from flm_torchrec.views.text import freeze


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextEncoder:
    """A pretrained encoder, its tokenizer and its sizes."""

    model: nn.Module
    tokenizer: Any
    hidden: int
    is_decoder: bool  # each token sees those before it only, as in GPT
    ranks: RankAllocation | None = None  # of mode adalora


def encoder_folder(name: str) -> str:
    """The folder that `name` stands for: itself, the one in an installed package, or `name` as a
    Hugging Face id."""
    if Path(name).is_dir():
        return name
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return name
    for file in files:
        if (
            file.name == "config.json"
            and (Path(str(file.locate())).parent / "tokenizer.json").exists()
        ):
            return str(Path(str(file.locate())).parent)
    raise UserError(f"views.text.encoder: the package {name!r} holds no model folder")


def load_encoder(config: TextConfig) -> TextEncoder:
    """The pretrained encoder, in fp32, frozen as `config.mode` says."""
    folder = encoder_folder(config.encoder)
    # Its report of the weights that an encoder doesn't need, such as a pooler's, says nothing.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UserError(
            f"views.text.encoder: {config.encoder!r} can't be loaded as an encoder with its "
            f"tokenizer; allowed: a folder with config.json, weights and tokenizer files, an "
            f"installed package that holds one, or a Hugging Face id: {error}"
        ) from error
    is_decoder = type(model.config) in CAUSAL_LMS and type(model.config) not in MASKED_LMS
    if is_decoder:
        model.config.use_cache = False
        # What pads at the end is seen by nothing.
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    lacks_mask = tokenizer.mask_token_id is None and not is_decoder
    if lacks_mask or tokenizer.pad_token_id is None:
        raise UserError(
            f"views.text.encoder: the tokenizer of {config.encoder!r} has no mask or no pad token"
        )
    _check_sizes(config, len(tokenizer), len(set(tokenizer.all_special_ids)), model.config)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # the text view pools the tokens' states itself
    if config.mode in ("lora", "adalora", "adapter"):
        add_adapters(model, config.mode, rank=config.rank)
    else:
        freeze(model, config.mode, last=config.last)
    return TextEncoder(
        model=model,
        tokenizer=tokenizer,
        hidden=model.config.hidden_size,
        is_decoder=is_decoder,
        ranks=RankAllocation(model, rank=config.rank) if config.mode == "adalora" else None,
    )


def _check_sizes(config: TextConfig, num_tokens: int, num_special: int, sizes: Any) -> None:
    # A folder without tokenizer files gives a tokenizer that knows special tokens alone.
    if not num_special < num_tokens <= sizes.vocab_size:
        raise UserError(
            f"views.text.encoder: the tokenizer of {config.encoder!r} knows {num_tokens} tokens, "
            f"{num_special} of them special; allowed: more than those, and at most the encoder's "
            f"{sizes.vocab_size} (are the folder's tokenizer files there?)"
        )
    longest = getattr(sizes, "max_position_embeddings", None) or config.max_tokens
    if config.max_tokens > longest:
        raise UserError(
            f"views.text.max_tokens: {config.max_tokens}; allowed: at most the {longest} of "
            f"{config.encoder!r}"
        )


def tokenised(dataset: Dataset, encoder: TextEncoder, config: TextConfig) -> Texts:
    """The texts of the items and of the corpus in tokens."""
    named = {} if dataset.items is None else dataset.items.text
    if not named and not dataset.corpus:
        raise UserError(
            "views.text: the data's schema declares no text; allowed: with items.text or a corpus"
        )
    every_text = [text for texts in named.values() for text in texts] + dataset.corpus
    table = tokenise(every_text, encoder.tokenizer, max_tokens=config.max_tokens)
    if encoder.is_decoder:
        table = replace(table, mask_token=None)
    pool = np.setdiff1d(np.flatnonzero(table.is_word.any(1)), held_out_texts(table))
    num_items = len(dataset.items.ids) if dataset.items is not None and named else 0
    return Texts(table=table, num_names=len(named), num_items=num_items, masked_pool=pool)
