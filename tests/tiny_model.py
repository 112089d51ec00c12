"""Small models over the tiny data set, with their tables in memory and an encoder made by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
)

from flm_torchrec.assemble import hidden_texts
from flm_torchrec.build import build_model
from flm_torchrec.build_data import build_collator, build_sampler
from flm_torchrec.build_linear import fitted
from flm_torchrec.config import RunConfig
from flm_torchrec.data.batch import Edges, FLMBatch, ItemRows, MaskedText, TextRows, UserRows
from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.sampling import LogSampler, UserSampler
from flm_torchrec.encoder import load_encoder, tokenised
from flm_torchrec.model import Items, Masked, Users, Views
from flm_torchrec.trainable import FLMTrain
from flm_torchrec.views.text_cache import text_vectors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("red", "blue", "old", "car", "boat", "plane", "train")
VOCABULARY = len(SPECIAL) + len(WORDS)


def save_encoder(folder: Path, *, with_tokenizer: bool = True) -> Path:
    """A BERT of 2 layers, 16 wide, that knows 7 words."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=8,
                initializer_range=0.3,
            )
        )
    model.save_pretrained(folder)
    if with_tokenizer:
        words = folder / "vocab.txt"
        words.write_text("\n".join([*SPECIAL, *WORDS]))
        BertTokenizerFast(vocab=str(words)).save_pretrained(folder)
    return folder


def save_decoder(folder: Path) -> Path:
    """A GPT-2 of 2 layers, 16 wide, that knows the same words; it has no mask and no pad token."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = GPT2Config(
            vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=8, eos_token_id=0
        )
        GPT2Model(sizes).save_pretrained(folder)
    words = {word: row for row, word in enumerate(("<end>", "<unk>", *WORDS))}
    tokens = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokens.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token="<end>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    return folder


def config(
    *,
    data: dict[str, Any] | None = None,
    views: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    tasks: dict[str, Any] | None = None,
) -> RunConfig:
    calm = {"view_dropout": 0.0, "history": {"layers": 1, "dropout": 0.0}}
    short_text = text and {"max_tokens": 8, **{key: text[key] for key in text}}
    return RunConfig.model_validate(
        {
            "data": {"path": ".", "users": 2, "window": 4, "reverse": 0.0, **(data or {})},
            "views": {"width": 8, **calm, "text": short_text, **(views or {})},
            "tasks": {"rank": {}} if tasks is None else tasks,
            "train": {"steps": 1},
        }
    )


@dataclass(frozen=True, kw_only=True)
class Parts:
    config: RunConfig
    dataset: Dataset
    model: FLMTrain
    collator: Collator
    sampler: UserSampler | LogSampler | None


def materialise(model: nn.Module) -> None:
    """Tables leave the meta device, as `DistributedModelParallel` has it otherwise."""
    for module in model.modules():
        if hasattr(module, "embedding_bag_configs"):
            module.to_empty(device="cpu")
            for table in module.parameters():
                nn.init.normal_(table, std=0.1)


def parts(config: RunConfig, dataset: Dataset, *, rank: int = 0, world_size: int = 1) -> Parts:
    torch.manual_seed(0)
    text = config.views.text
    encoder = load_encoder(text) if text else None
    model = build_model(config, dataset, encoder)
    materialise(model)
    texts, view = None, model.flm.text_view
    if text is not None and encoder is not None and view is not None:
        texts = tokenised(dataset, encoder, text)
        encode = partial(
            text_vectors, view, folder=None, rank=0, world_size=1, gather=lambda tensor: tensor
        )
        view.vectors = encode(texts)
        hidden = hidden_texts(config, dataset, encoder)
        if hidden is not None:
            view.hidden_vectors = encode(hidden)
    if model.flm.linear is not None:
        model.flm.linear.weight = fitted(config, dataset)
    return Parts(
        config=config,
        dataset=dataset,
        model=model,
        collator=build_collator(config, dataset, texts=texts, rank=rank, world_size=world_size),
        sampler=build_sampler(config, dataset),
    )


def train(parts: Parts, *, steps: int, lr: float = 0.02) -> Tensor:
    """Losses (steps, T) of a run on all parameters."""
    parameters = [p for p in parts.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    losses = []
    for step in range(steps):
        weighted, output = parts.model(parts.collator.step(parts.sampler, step))
        optimizer.zero_grad()
        weighted.sum().backward()
        optimizer.step()
        losses.append(output.losses)
    return torch.stack(losses)


def batch(
    history: Sequence[Sequence[int]],
    *,
    item_row: Sequence[int],
    first: Sequence[int] | None = None,
    log_q: Sequence[float] | None = None,
    known: Sequence[tuple[int, int]] = (),
    labels: Tensor | None = None,
    label_weight: Tensor | None = None,
    aligned: Sequence[int] = (),
    aligned_edges: Sequence[int] = (),
    hidden: Sequence[Sequence[int]] | None = None,
    masked_target: Tensor | None = None,
) -> FLMBatch:
    """A batch by hand, every event an edge; history 0 = no event, features empty."""
    rows = torch.tensor(history)
    num_users, window = rows.shape
    num_items = len(item_row)
    none = torch.zeros(0, 1, dtype=torch.int64)
    target = none if masked_target is None else masked_target
    pairs = torch.tensor(known, dtype=torch.int64).reshape(-1, 2)
    return FLMBatch(
        edges=edges(
            rows.reshape(-1),
            user=torch.arange(num_users).repeat_interleave(window),
            step=torch.arange(window).repeat(num_users),
            labels=labels,
            label_weight=label_weight,
            aligned=aligned_edges,
        ),
        users=UserRows(
            row=torch.arange(1, 1 + num_users),
            features=no_features(num_users),
            numbers=torch.zeros(num_users, 0),
            history=rows,
            num_events=(rows > 0).sum(1),
            session=torch.zeros_like(rows),
            event_labels=torch.zeros(num_users, window, 1),
            gap=torch.zeros(num_users, window),
            hidden=rows[:, :0] if hidden is None else torch.tensor(hidden),
            known_user=pairs[:, 0],
            known_item=pairs[:, 1],
        ),
        items=ItemRows(
            row=torch.tensor(item_row),
            features=no_features(num_items),
            numbers=torch.zeros(num_items, 0),
            first=torch.arange(num_items) if first is None else torch.tensor(first),
            log_q=torch.zeros(num_items) if log_q is None else torch.tensor(log_q),
            aligned=torch.tensor(aligned, dtype=torch.int64),
        ),
        text=TextRows(item=none[:, 0], name=none[:, 0], tokens=none, attention=none),
        masked_text=MaskedText(tokens=target, attention=torch.ones_like(target), target=target),
    )


def edges(
    item: Tensor,
    *,
    user: Tensor,
    step: Tensor,
    time: Tensor | None = None,
    weight: Tensor | None = None,
    is_negative: Tensor | None = None,
    impression: Tensor | None = None,
    labels: Tensor | None = None,
    label_weight: Tensor | None = None,
    numbers: Tensor | None = None,
    aligned: Sequence[int] = (),
) -> Edges:
    """Edges by hand; each of an item counts the same, none has been passed over, and the time is
    the step unless it is told."""
    none = torch.zeros(len(item), 0)
    is_there = item > 0
    return Edges(
        user=user,
        step=step,
        item=item,
        time=step if time is None else time,
        weight=is_there / is_there.sum() if weight is None else weight,
        is_negative=torch.zeros_like(is_there) if is_negative is None else is_negative,
        impression=torch.arange(len(item)) if impression is None else impression,
        labels=none if labels is None else labels,
        label_weight=none if label_weight is None else label_weight,
        context=None,
        numbers=none if numbers is None else numbers,
        aligned=torch.tensor(aligned, dtype=torch.int64),
    )


def no_features(rows: int) -> KeyedJaggedTensor:
    return KeyedJaggedTensor(
        keys=["x"],
        values=torch.zeros(0, dtype=torch.int64),
        lengths=torch.zeros(rows, dtype=torch.int32),
    )


def views(
    *,
    states: Tensor | None = None,
    row: Tensor | None = None,
    item_views: Tensor | None = None,
    present: Tensor | None = None,
    user_features: Tensor | None = None,
    item_features: Tensor | None = None,
    masked_states: Tensor | None = None,
    token_embedding: Tensor | None = None,
) -> Views:
    """Views by hand; what isn't given is empty."""

    def given(tensor: Tensor | None) -> Tensor:
        return torch.zeros(0) if tensor is None else tensor

    every_view = torch.ones(given(item_views).shape[:2], dtype=torch.bool)
    return Views(
        users=Users(states=given(states), features=given(user_features)),
        items=Items(
            row=given(row),
            views=given(item_views),
            present=every_view if present is None else present,
            weights=torch.ones(0),
            features=given(item_features),
        ),
        masked=Masked(states=given(masked_states), token_embedding=given(token_embedding)),
    )
