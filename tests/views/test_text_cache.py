import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from flm_torchrec.data.text import TokenTable, tokenise
from flm_torchrec.views.text import TextView
from flm_torchrec.views.text_cache import content_hash, text_vectors

TEXTS = ["", "red car", "blue boat", "", "old blue red train", "plane"]


@pytest.fixture
def view(encoder_folder) -> TextView:
    encoder = AutoModel.from_pretrained(encoder_folder, add_pooling_layer=False)
    return TextView(encoder, hidden=16, dim=8)


@pytest.fixture
def table(encoder_folder) -> TokenTable:
    return tokenise(TEXTS, AutoTokenizer.from_pretrained(encoder_folder), max_tokens=8)


def alone(view, table, folder=None, **more) -> torch.Tensor:
    return text_vectors(
        view, table, folder=folder, rank=0, world_size=1, gather=lambda tensor: tensor, **more
    )


def test_vectors_equal_a_direct_call_and_are_0_without_text(view, table):
    vectors = alone(view, table, batch_size=2)
    view.eval()
    for row in (1, 2, 4, 5):
        tokens, attention = (torch.from_numpy(a) for a in table.take(np.array([row])))
        torch.testing.assert_close(vectors[row], view.encode(tokens, attention)[0])
    assert (vectors[[0, 3]] == 0).all()
    assert not vectors.requires_grad


def test_the_mode_of_the_view_is_left_as_it_was(view, table):
    alone(view.train(), table)
    assert view.encoder.training
    alone(view.eval(), table)
    assert not view.encoder.training


def test_a_second_call_reads_the_file_of_the_first(view, table, tmp_path):
    first = alone(view, table, tmp_path)
    (file,) = tmp_path.iterdir()
    np.save(file, np.full((6, 16), 7, dtype=np.float32))
    assert (alone(view, table, tmp_path) == 7).all()
    file.unlink()
    torch.testing.assert_close(alone(view, table, tmp_path), first)


def test_another_weight_or_another_text_is_another_file(view, table, tmp_path, encoder_folder):
    alone(view, table, tmp_path)
    assert content_hash(view.encoder, table) == content_hash(view.encoder, table)
    with torch.no_grad():
        view.encoder.embeddings.word_embeddings.weight[5, 0] += 1e-3
    alone(view, table, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    other = tokenise([*TEXTS[:-1], "car"], tokenizer, max_tokens=8)
    alone(view, other, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_without_a_folder_nothing_is_written_and_weights_are_read_anew(view, table):
    before = alone(view, table)
    with torch.no_grad():
        view.encoder.embeddings.word_embeddings.weight[5, 0] += 1.0
    assert (alone(view, table)[1] - before[1]).abs().max() > 1e-3


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_the_shares_of_all_ranks_cover_every_text(view, table, world_size):
    """More ranks than texts included: each then encodes one again."""
    calls: list[torch.Tensor] = []
    for rank in range(world_size):
        text_vectors(
            view,
            table,
            folder=None,
            rank=rank,
            world_size=world_size,
            gather=lambda tensor: calls.append(tensor) or tensor,
        )
    rows = torch.cat(calls[0::2])
    vectors = torch.cat(calls[1::2])
    assert set(rows.tolist()) == {1, 2, 4, 5}
    assert len({len(part) for part in calls[0::2]}) == 1
    torch.testing.assert_close(vectors, alone(view, table)[rows])


def test_a_catalogue_without_text_has_no_vectors(view, encoder_folder):
    table = tokenise(["", ""], AutoTokenizer.from_pretrained(encoder_folder), max_tokens=8)
    assert alone(view, table).tolist() == [[0.0] * 16] * 2
