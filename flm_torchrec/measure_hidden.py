"""How much of what is hidden of held-out items and texts a run finds, on any rank count."""

import numpy as np
import torch

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.batch import MaskedText, TextRows
from flm_torchrec.data.text import held_out_texts
from flm_torchrec.data.text_batch import masked_batch
from flm_torchrec.retrieval import evaluating
from flm_torchrec.tasks.cloze import ClozeTask
from flm_torchrec.tasks.mlm import MaskedLM

MOST_MASKED = 4096  # texts or items that a task is measured on


def cloze_accuracy(assembly: Assembly) -> dict[str, float]:
    """Share of the held-out items of which the most probable value of the hidden attribute is one
    of theirs, beside that where the id is hidden too, and that of always saying the most frequent
    value; {} without the task or such items. Called by all ranks."""
    cloze, flm, device = assembly.collator.cloze, assembly.model.flm, assembly.runtime.device
    if cloze is None or not len(cloze.held_out):
        return {}
    head, rows = assembly.model.objective.tasks["cloze"], cloze.held_out[:MOST_MASKED]
    assert isinstance(head, ClozeTask)
    no_text, no_masked = TextRows.none().to(device), MaskedText.none().to(device)

    def found(*, hide_id: bool) -> float:
        is_found = []
        for block in np.split(rows, range(512, len(rows), 512)):
            items = cloze.alone(block, hide_id=hide_id).to(device)
            hidden = flm.items(items, no_text, no_masked)[0].hidden
            said = 1 + head.score(hidden).argmax(1)
            is_found.append((items.cloze.target == said[:, None]).any(1))
        return float(torch.cat(is_found).float().mean())

    trained = cloze.targets[cloze.pool]
    most_frequent = int(np.bincount(trained[trained > 0]).argmax())
    with evaluating(assembly.model):
        return {
            "accuracy": found(hide_id=False),
            "without_id": found(hide_id=True),
            "most_frequent": float((cloze.targets[rows] == most_frequent).any(1).mean()),
        }


def masked_accuracy(assembly: Assembly, *, seed: int = 0) -> dict[str, float]:
    """Share of the hidden tokens of held-out texts that are found, beside that of always saying
    the most frequent token of the training texts; {} without the task or such texts."""
    text, task = assembly.collator.text, assembly.model.objective.tasks
    view = assembly.model.flm.text_view
    if "mlm" not in task or text is None or view is None:
        return {}
    head = task["mlm"]
    assert isinstance(head, MaskedLM)
    table = text.table
    rows = held_out_texts(table)[:MOST_MASKED]
    if not len(rows):
        return {}
    rng = np.random.default_rng(seed)
    found, target = [], []
    with evaluating(assembly.model):
        for start in range(0, len(rows), 64):
            batch = masked_batch(table, rows[start : start + 64], rng, own=slice(None))
            batch = batch.to(assembly.runtime.device)
            is_hidden = batch.target != -100
            states = view.token_states(batch.tokens, batch.attention)[is_hidden]
            found.append(head.logits(states, view.token_embedding()).argmax(1))
            target.append(batch.target[is_hidden])
    is_found = torch.cat(found) == torch.cat(target)
    trained = table.tokens[text.masked_pool][table.is_word[text.masked_pool]]
    most_frequent = int(np.bincount(trained).argmax())
    return {
        "accuracy": float(is_found.float().mean()),
        "most_frequent": float((torch.cat(target) == most_frequent).float().mean()),
    }
