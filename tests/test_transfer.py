"""What a run takes over from one on other data."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import tiny_model
from tiny_domains import movies_and_music

from flm_torchrec.data.domains import joined
from flm_torchrec.errors import UserError
from flm_torchrec.transfer import check_origin, moved, origin, places

HEADS = {"heads": {"biases": ["rating"]}, "cloze": {"attribute": "movies_genres"}}


def test_the_places_of_inputs_are_told(tmp_path: Path) -> None:
    both = movies_and_music(tmp_path)
    told = places(tiny_model.config(text={"encoder": "none"}, tasks=HEADS), both)
    assert told["flm.item_view.numbers"] == ["movies_year", "music_length"]
    assert told["flm.user_view.numbers"] == ["movies_age"]
    assert told["flm.text_view.projections"] == told["flm.fusion"] == ["title", "lyrics"]
    assert told["flm.history.event"] == ["like", "rating", "skipped"]
    assert told["objective.tasks.cloze"] == ["movies_genres"]
    head = "objective.tasks.heads.heads"
    assert told[f"{head}.like_head"] == []
    assert told[f"{head}.rating_head"][:4] == ["3.0", "4.0", "5.0", "10.0"]
    assert "music_artist" in told[f"{head}.rating_head"]


def test_what_stands_for_something_else_is_fresh(tmp_path: Path) -> None:
    both, config = movies_and_music(tmp_path), tiny_model.config()
    assert both.domains is not None
    known, movies = origin(config, both), joined({"movies": both.domains.datasets[0]})
    assert moved(known, places(config, both)) == []
    fresh = moved(known, places(config, movies))
    assert "flm.item_view.numbers" in fresh
    assert "flm.history.event" in fresh
    assert "flm.user_view.numbers" not in fresh
    # Checkpoints of before told nothing of it, but were of the same data.
    assert moved({"fingerprint": "x"}, places(config, movies)) == []


def test_a_checkpoint_of_other_domains_may_be_started_from(tmp_path: Path) -> None:
    both, config = movies_and_music(tmp_path), tiny_model.config()
    assert both.domains is not None
    movies, music = both.domains.datasets
    known = origin(config, both)
    assert known["domains"] == {"movies": movies.fingerprint, "music": music.fingerprint}
    for other in (joined({"movies": movies}), joined({"books": music}), both):
        check_origin(tmp_path, known, other, folder="data", other=True)
    with pytest.raises(UserError, match="of the domain movies, whose folder holds"):
        check_origin(tmp_path, known, joined({"movies": music}), folder="data", other=True)
    grown = replace(music, fingerprint="later", grown_from=(music.fingerprint,))
    check_origin(tmp_path, known, joined({"music": grown}), folder="data", other=True)


def test_only_the_same_data_are_gone_on_with(tmp_path: Path) -> None:
    both, config = movies_and_music(tmp_path), tiny_model.config()
    assert both.domains is not None
    known, movies = origin(config, both), both.domains.datasets[0]
    check_origin(tmp_path, known, both, folder="data", other=False)
    for other, dataset in ((False, joined({"movies": movies})), (True, movies)):
        with pytest.raises(UserError) as caught:
            check_origin(tmp_path, known, dataset, folder="a, b", other=other)
        assert str(caught.value) == (
            f"checkpoint {tmp_path}: was trained on data {both.fingerprint}, a, b holds "
            f"{dataset.fingerprint}; allowed: the data as it was when prepared"
        )
    old = {"fingerprint": "tiny"}
    check_origin(tmp_path, old, tiny.dataset(), folder="data", other=False)
