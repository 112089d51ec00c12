import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from flm_torchrec.data.text import Texts, tokenise
from flm_torchrec.views.text import TextView
from flm_torchrec.views.text_cache import content_hash, text_vectors

TEXTS = ["", "red car", "blue boat", "", "old blue red train", "plane"]


@pytest.fixture
def view(encoder_folder) -> TextView:
    encoder = AutoModel.from_pretrained(encoder_folder, add_pooling_layer=False)
    return TextView(encoder, hidden=16, dim=8)


@pytest.fixture
def texts(encoder_folder) -> Texts:
    return texts_of(TEXTS, encoder_folder)


def texts_of(texts: list[str], encoder_folder, *, num_names=1, corpus=()) -> Texts:
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    return Texts(
        table=tokenise([*texts, *corpus], tokenizer, max_tokens=8),
        num_names=num_names,
        num_items=len(texts) // num_names,
        masked_pool=np.zeros(0, dtype=np.int64),
    )


def alone(view, texts, folder=None, **more) -> torch.Tensor:
    return text_vectors(
        view, texts, folder=folder, rank=0, world_size=1, gather=lambda tensor: tensor, **more
    )


def test_vectors_equal_a_direct_call_and_are_0_without_text(view, texts):
    (vectors,) = alone(view, texts, batch_size=2)
    view.eval()
    for row in (1, 2, 4, 5):
        tokens, attention = (torch.from_numpy(a) for a in texts.table.take(np.array([row])))
        torch.testing.assert_close(vectors[row], view.encode(tokens, attention)[0])
    assert (vectors[[0, 3]] == 0).all()
    assert not vectors.requires_grad


def test_texts_come_by_name_and_those_of_a_corpus_do_not(view, encoder_folder):
    both = texts_of(TEXTS, encoder_folder, num_names=2, corpus=["old boat"])
    vectors = alone(view, both)
    assert vectors.shape == (2, 3, 16)
    torch.testing.assert_close(vectors.view(6, 16), alone(view, texts_of(TEXTS, encoder_folder))[0])


def test_the_mode_of_the_view_is_left_as_it_was(view, texts):
    alone(view.train(), texts)
    assert view.encoder.training
    alone(view.eval(), texts)
    assert not view.encoder.training


def test_a_second_call_reads_the_file_of_the_first(view, texts, tmp_path):
    first = alone(view, texts, tmp_path)
    (file,) = tmp_path.iterdir()
    np.save(file, np.full((6, 16), 7, dtype=np.float32))
    assert (alone(view, texts, tmp_path) == 7).all()
    file.unlink()
    torch.testing.assert_close(alone(view, texts, tmp_path), first)


def test_another_weight_or_another_text_is_another_file(view, texts, tmp_path, encoder_folder):
    alone(view, texts, tmp_path)
    table = texts.table
    assert content_hash(view.encoder, table, 6) == content_hash(view.encoder, table, 6)
    with torch.no_grad():
        view.encoder.embeddings.word_embeddings.weight[5, 0] += 1e-3
    alone(view, texts, tmp_path)
    alone(view, texts_of([*TEXTS[:-1], "car"], encoder_folder), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_without_a_folder_nothing_is_written_and_weights_are_read_anew(view, texts):
    before = alone(view, texts)
    with torch.no_grad():
        view.encoder.embeddings.word_embeddings.weight[5, 0] += 1.0
    assert (alone(view, texts)[0, 1] - before[0, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_the_shares_of_all_ranks_cover_every_text(view, texts, world_size):
    """More ranks than texts included: each then encodes one again."""
    calls: list[torch.Tensor] = []
    for rank in range(world_size):
        text_vectors(
            view,
            texts,
            folder=None,
            rank=rank,
            world_size=world_size,
            gather=lambda tensor: calls.append(tensor) or tensor,
        )
    rows = torch.cat(calls[0::2])
    vectors = torch.cat(calls[1::2])
    assert set(rows.tolist()) == {1, 2, 4, 5}
    assert len({len(part) for part in calls[0::2]}) == 1
    torch.testing.assert_close(vectors, alone(view, texts)[0, rows])


def test_a_catalogue_without_text_has_no_vectors(view, encoder_folder):
    texts = texts_of(["", ""], encoder_folder)
    assert alone(view, texts).tolist() == [[[0.0] * 16] * 2]


def test_vectors_in_bf16_have_a_file_of_their_own(view, texts, tmp_path):
    exact = alone(view, texts, tmp_path)
    view.dtype = torch.bfloat16
    half = alone(view, texts, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, rtol=0.05, atol=0.05)
