"""Fixtures of the whole suite, which runs on the CPU also where there are GPUs."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from two_ranks.pool import Ranks

from flm_torchrec.data.sources.movielens import fetch_movielens_100k

# Before anything asks torch for GPUs, and for the processes that tests start.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

if TYPE_CHECKING:
    from flm_torchrec.training.runtime import Runtime


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same numbers in each run, alone or among others."""
    if "torch" in sys.modules:  # importing it takes seconds that many tests have no use for
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Two gloo ranks: `ranks.run(function, *args)` -> [result of rank 0, result of rank 1]."""
    pool = Ranks()
    yield pool
    pool.stop()


@pytest.fixture(scope="session")
def four_ranks() -> Iterator[Ranks]:
    """Four gloo ranks, two on each of two machines, as far as TorchRec knows."""
    pool = Ranks(world_size=4, local_world_size=2)
    yield pool
    pool.stop()


@pytest.fixture
def alone() -> "Iterator[Runtime]":
    """A job of one rank in this process."""
    # Importing it takes seconds that most tests have no use for.
    from flm_torchrec.training.runtime import start

    with start() as runtime:
        yield runtime


@pytest.fixture(scope="session")
def ml100k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens-100K as a canonical folder, fetched once a session; tests may prepare it."""
    folder = tmp_path_factory.mktemp("data") / "ml-100k"
    fetch_movielens_100k(folder)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder of 2 layers with its tokenizer, as Hugging Face saves them."""
    # Importing it takes seconds that most tests have no use for.
    from tiny_model import save_encoder

    return save_encoder(tmp_path_factory.mktemp("encoder"))
