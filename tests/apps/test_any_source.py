"""Twenty rows of any source, from its files to a trained and evaluated model, by its YAML alone."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from flm_apps import data as data_app
from flm_apps import evaluate as evaluate_app
from flm_apps import train as train_app
from layouts import BEHAVIORS, CLICKS, NEWS, REVIEWS, converted
from small_data import write_folder
from tiny_model import SPECIAL, WORDS, save_encoder
from transformers import BertTokenizerFast
from two_ranks.pool import Ranks
from two_ranks.test_flm import config, train_from_start

from flm_torchrec.training.runtime import Runtime

HEADS = {"hidden": 16, "width": 8}


def text_of(encoder: Path) -> dict[str, Any]:
    return {"encoder": str(encoder), "mode": "full", "rows": 4, "max_tokens": 8, "refresh": 2}


def trained(
    folder: Path, *, tasks: Mapping[str, Any], text: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The report of a run that checks the data, trains two steps and evaluates."""
    assert data_app.main(["check", str(folder)]) == 0
    run = folder.with_name("run")
    views = {"width": 8, "history": {"layers": 1}}
    settings = {
        "data": {"path": str(folder), "users": 2, "rows": 8, "window": 4},
        "views": views if text is None else views | {"text": dict(text)},
        "tasks": dict(tasks),
        "train": {"steps": 2, "log_every": 1, "checkpoint_every": 2},
    }
    (folder.parent / "run.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["--config", str(folder.parent / "run.yaml"), "--run", str(run)]
    assert train_app.main(arguments) == 0
    assert evaluate_app.main(["--run", str(run)]) == 0
    report = json.loads((run / "report.json").read_text())
    losses = [value for task in report["tasks"].values() for value in task.values()]
    assert all(isfinite(value) for value in losses)
    return report


def test_twenty_impressions_of_mind_train(tmp_path: Path, encoder_folder: Path) -> None:
    folder = converted("mind", {"behaviors.tsv": BEHAVIORS, "news.tsv": NEWS}, tmp_path)
    tasks = {"rank": {}, "heads": HEADS, "align": {"items": 4, "edges": 4}}
    report = trained(folder, tasks=tasks, text=text_of(encoder_folder))
    assert set(report["tasks"]) == {"rank", "click", "align"}
    assert {"users": 4, "items": 7}.items() <= report["data"].items()


def test_twenty_clicks_of_criteo_train(tmp_path: Path) -> None:
    folder = converted("criteo", {"train.txt": CLICKS}, tmp_path)
    report = trained(folder, tasks={"heads": HEADS | {"cross": "dcn"}})
    assert set(report["tasks"]) == {"click"}
    assert report["data"] == {"interactions": 20}


def test_twelve_reviews_of_amazon_train_the_text_that_they_are(
    tmp_path: Path, encoder_folder: Path
) -> None:
    folder = converted("amazon", {"reviews.json": REVIEWS}, tmp_path)
    tasks = {"rank": {}, "mlm": {"texts": 4}, "align": {"items": 4}, "heads": HEADS}
    report = trained(folder, tasks=tasks, text=text_of(encoder_folder))
    assert {"rank", "mlm", "align", "rating"} <= set(report["tasks"])
    assert report["data"] == {"users": 2, "items": 6, "interactions": 12}


def test_a_corpus_alone_trains_the_language_model(tmp_path: Path, encoder_folder: Path) -> None:
    texts = "".join(f"{one} {other}\n" for one in WORDS for other in WORDS)
    files = {"corpus.txt": texts, "schema.yaml": 'corpus: "{text}"\n'}
    folder = write_folder(tmp_path / "data", files=files)
    report = trained(folder, tasks={"mlm": {"texts": 8}}, text=text_of(encoder_folder))
    assert set(report["tasks"]) == {"mlm"}
    assert report["data"] == {"corpus": 49}


def sequences(words: Sequence[str]) -> dict[str, str]:
    """Twelve users who rate and watch eight items each; items have two texts of seven words."""
    items = "".join(
        f"片{n},{words[n % 3]}{words[3 + n % 4]},{words[n % 7]} {words[(n + 2) % 7]},{genre}\n"
        for n, genre in enumerate(
            ["动作|爱情", "爱情", "", "战争", "动作", "爱情|战争", "动作", ""]
        )
    )
    met = "".join(
        f"用户{user},片{(user + step) % 8},{1 + (user + step) % 5},{step}\n"
        for user in range(12)
        for step in range(8)
    )
    schema = {
        "items": {
            "id": "片",
            "features": {"类型": {"kind": "multi", "separator": "|"}},
            "text": {"标题": "{标题}。{类型}", "情节": "{情节}"},
        },
        "interactions": {
            "user": "用户",
            "item": "片",
            "time": "时间",
            "labels": {"喜欢": "评分 >= 4", "评分": "ordinal"},
        },
    }
    return {
        "items.csv": f"片,标题,情节,类型\n{items}",
        "interactions.csv": f"用户,片,评分,时间\n{met}",
        "schema.yaml": yaml.safe_dump(schema, allow_unicode=True),
    }


def test_two_texts_of_an_item_train_as_two_views(tmp_path: Path, encoder_folder: Path) -> None:
    words = [f"{word} " for word in WORDS]
    folder = write_folder(tmp_path / "data", files=sequences(words))
    tasks = {"rank": {}, "mlm": {"texts": 4}, "align": {"items": 4}, "heads": HEADS}
    report = trained(folder, tasks=tasks, text=text_of(encoder_folder))
    assert set(report["tasks"]) == {"rank", "mlm", "align", "喜欢", "评分"}
    lines = (folder.with_name("run") / "log.jsonl").read_text(encoding="utf-8")
    last = [json.loads(line) for line in lines.splitlines() if "fusion/" in line][-1]
    assert len({key for key in last if "fusion/" in key}) == 3


CHARACTERS = ("红", "蓝", "老", "车", "船", "机", "火")


def test_chinese_titles_train_on_two_ranks_as_on_one(
    alone: Runtime, ranks: Ranks, tmp_path: Path
) -> None:
    encoder = save_encoder(tmp_path / "encoder", with_tokenizer=False)
    vocabulary = encoder / "vocab.txt"
    vocabulary.write_text("\n".join([*SPECIAL, *CHARACTERS]), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab=str(vocabulary))
    assert tokenizer.tokenize("红船。") == ["红", "船", "[UNK]"]
    tokenizer.save_pretrained(encoder)
    run = config(write_folder(tmp_path / "data", files=sequences(CHARACTERS)), encoder)
    expected, quality = train_from_start(alone, run, tmp_path / "start")
    (first, found), (second, _) = ranks.run(train_from_start, run, tmp_path / "start")
    mean = (torch.tensor(first) + torch.tensor(second)) / 2
    assert mean.isfinite().all()
    torch.testing.assert_close(mean, torch.tensor(expected), rtol=1e-3, atol=1e-4)
    assert found == pytest.approx(quality, abs=2e-3)


NAMES = ("type", "class", "values", "index", "forward", "items", "text", "weight")


def test_reserved_words_as_names_train(tmp_path: Path, encoder_folder: Path) -> None:
    files = sequences([f"{word} " for word in WORDS])
    items, schema = files["items.csv"].splitlines(), yaml.safe_load(files["schema.yaml"])
    items = [f"{line},{','.join(NAMES if n == 0 else 'abcdefgh')}" for n, line in enumerate(items)]
    schema["items"]["features"] |= dict.fromkeys(NAMES, "categorical")
    schema["items"]["text"] = {name: f"{{标题}}{{{name}}}" for name in NAMES[:3]}
    schema["interactions"]["labels"] = dict.fromkeys(NAMES, "评分 >= 4")
    schema["interactions"] |= {"order": "by_log", "context": {"评分": "categorical"}}
    texts = {"items.csv": "\n".join(items) + "\n", "schema.yaml": yaml.safe_dump(schema)}
    folder = write_folder(tmp_path / "data", files=files | texts)
    tasks = {"rank": {}, "align": {"items": 4}, "heads": HEADS | {"cross": "fm"}}
    report = trained(folder, tasks=tasks, text=text_of(encoder_folder))
    assert set(report["tasks"]) == {"rank", "align", *NAMES}
