"""Several domains in the steps of a run: what competes, what is drawn, and what one of them is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from small_data import LOG, write_folder
from tiny_domains import movies_and_music, planted

from flm_torchrec.build_data import build_sampler, open_data, shown_share
from flm_torchrec.config import RunConfig
from flm_torchrec.data.domain_sampling import DomainUserSampler
from flm_torchrec.data.sampling import UserSampler, histories
from flm_torchrec.errors import UserError
from flm_torchrec.evaluation.ranking import evaluate
from flm_torchrec.measure import ranking_task
from flm_torchrec.measure_domains import within_domains
from flm_torchrec.retrieval import Retrieval
from flm_torchrec.tasks.ranking import Ranking, is_no_negative

TASKS = {"rank": {}, "item_cloze": {}, "order": {}, "heads": {"dropout": 0.0}}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    planted(folder, "toys", seed=0)
    planted(folder, "films", users=16, seed=1)
    return folder


def config(folder: Path, *names: str, path: str | None = None, **data: object) -> RunConfig:
    where = {"path": path} if path else {"path": None}
    domains = {name: str(folder / name) for name in names}
    settings = {**where, **({"domains": domains} if names else {}), "users": 6, **data}
    return tiny_model.config(data=settings, tasks=TASKS)


@pytest.mark.parametrize("negatives", ["all", 12])
def test_an_edge_is_ranked_against_items_of_its_own_domain(two: Path, negatives: object) -> None:
    run = config(two, "toys", "films", negatives=negatives)
    made = tiny_model.parts(run, open_data(run))
    batch = made.collator.step(made.sampler, 0)
    domains = made.dataset.domains
    assert domains is not None
    assert batch.items is not None
    of = torch.from_numpy(domains.items)[batch.items.row]
    num_negatives = len(batch.items.log_q)
    is_other = of[-num_negatives:] != of[batch.edges.item][:, None]
    is_out = is_no_negative(batch, mask_seen=False)
    assert is_other.any()
    assert is_out[is_other].all()
    assert (~is_out & ~is_other)[batch.edges.weight > 0].any(1).all()
    # Sampled items beside what always holds, too.
    half = len(batch.edges.item) // 2
    is_told = batch.edges.label_weight[half:, 0] > 0
    assert (of[batch.edges.item[half:]] == of[batch.edges.item[:half]])[is_told].all()


def test_items_of_another_domain_get_no_gradient(two: Path) -> None:
    run = config(two, "toys", "films", temperature=1e6)
    made = tiny_model.parts(run, open_data(run))
    batch = made.collator.step(made.sampler, 0)
    assert batch.users is not None
    assert made.dataset.domains is not None
    of_item = torch.from_numpy(made.dataset.domains.items)
    of_edge = torch.from_numpy(made.dataset.domains.users)[batch.users.row][batch.edges.user]
    assert set(of_edge.tolist()) == {1, 2}
    batch = replace(batch, edges=replace(batch.edges, weight=batch.edges.weight * (of_edge == 2)))
    views = made.model.flm(batch)
    assert views.items is not None
    views.items.row.retain_grad()
    Ranking(mask_seen=True)(views, batch).backward()
    gradient = views.items.row.grad
    assert gradient is not None
    assert gradient[of_item == 2].abs().sum(1).gt(0).all()
    assert gradient[of_item == 1].abs().sum() == 0


def test_losses_fall_on_both_domains(two: Path) -> None:
    run = config(two, "toys", "films", temperature=2.0)
    losses = tiny_model.train(tiny_model.parts(run, open_data(run)), steps=60)
    assert losses[-10:].mean(0)[0] < 0.9 * losses[:10].mean(0)[0]
    assert losses.isfinite().all()


def test_one_domain_trains_as_its_folder_does_bit_for_bit(two: Path) -> None:
    runs = config(two, path=str(two / "toys")), config(two, "toys")
    losses = [tiny_model.train(tiny_model.parts(run, open_data(run)), steps=5) for run in runs]
    assert torch.equal(*losses)


def test_scores_of_items_of_other_domains_are_out_of_reach(two: Path) -> None:
    run = config(two, "toys", "films")
    made = tiny_model.parts(run, open_data(run))
    retrieval = Retrieval(
        made.model,
        made.collator,
        device=torch.device("cpu"),
        rank=0,
        world_size=1,
        gather=lambda tensor: tensor,
    )
    seqs = histories(made.dataset.interactions, before_part=1)
    scores = retrieval.scores(np.array([1, 48, 49, 64]), seqs)
    assert scores[:2, 1:17].isfinite().all()
    assert scores[2:, 17:].isfinite().all()
    assert (scores[:2, 17:] == -torch.inf).all()
    assert (scores[2:, :17] == -torch.inf).all()


def test_other_scorers_are_held_to_a_users_own_domain(two: Path) -> None:
    dataset = open_data(config(two, "toys", "films"))
    score = within_domains(lambda users: torch.arange(33.0).expand(len(users), -1), dataset)
    task = ranking_task(dataset, "test")
    result = evaluate(score, task, num_items=33, ks=(3,))
    assert dataset.domains is not None
    of = dataset.domains.items[result.topk]
    assert (of == dataset.domains.users[task.users][:, None]).all()


def test_negatives_of_the_batch_are_corrected_for_the_temperature(two: Path) -> None:
    run = config(two, "toys", "films", temperature=1e6, negatives=8, negative_source="in_batch")
    dataset = open_data(run)
    sampler = build_sampler(run, dataset)
    assert isinstance(sampler, DomainUserSampler)
    assert dataset.domains is not None
    shown = shown_share(run, dataset)
    # Half of what is shown is of either domain, though one is three times as large.
    each = [shown[dataset.domains.interactions == number].sum() for number in (1, 2)]
    assert each[0] == pytest.approx(each[1], rel=1e-4)


def test_with_one_domain_users_come_in_epochs_of_all(two: Path) -> None:
    run = config(two, "toys")
    assert type(build_sampler(run, open_data(run))) is UserSampler


def test_a_temperature_needs_users(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_folder(tmp_path / name, files=LOG)
    run = config(tmp_path, "a", "b", temperature=2.0, rows=4)
    with pytest.raises(UserError) as caught:
        build_sampler(run, open_data(run))
    assert str(caught.value) == (
        "data.temperature: 2.0; with order: by_log domains come as often as their rows; "
        "allowed: 1.0, or data with order: by_user"
    )


def test_logs_of_two_domains_make_a_step(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_folder(tmp_path / name, files=LOG)
    tasks = {"rank": {}, "heads": {}}
    where = {"path": None, "domains": {name: str(tmp_path / name) for name in ("a", "b")}}
    run = tiny_model.config(data={**where, "rows": 8, "window": 2}, tasks=tasks)
    made = tiny_model.parts(run, open_data(run))
    assert tiny_model.train(made, steps=3).isfinite().all()


def test_domains_that_share_nothing_but_a_text_train(tmp_path: Path, encoder_folder: Path) -> None:
    dataset = movies_and_music(tmp_path)
    text = {"encoder": str(encoder_folder)}
    run = tiny_model.config(text=text, tasks={**TASKS, "align": {}, "fuse": {}})
    losses = tiny_model.train(tiny_model.parts(run, dataset), steps=4)
    assert losses.isfinite().all()
