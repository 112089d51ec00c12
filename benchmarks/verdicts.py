"""What ours and the peers answered, side by side, against what must be reached."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flm_benchmarks.ours import LINEAR
from flm_benchmarks.peers.measured import EARLIER, Measured

from flm_torchrec.errors import UserError
from flm_torchrec.evaluation.bounds import checked
from flm_torchrec.evaluation.compare import Estimate, ratio_of_means

Bound = dict[str, Any]
# The metric of each family, whether more of it is better, and what of a user it is compared by.
METRICS = {
    "ranking": ("ndcg@10", True, "ndcg@10"),
    EARLIER: ("ndcg@10", True, "ndcg@10"),
    "cold_items": ("ndcg@20", True, "ndcg@20"),
    "cold_users": ("ndcg@10", True, "ndcg@10"),
    "clicks": ("auc", True, "log_loss"),
    "ratings": ("rmse", False, "squared_error"),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contest:
    """Who answered the same question, and who of them is best by the test."""

    name: str  # of the question
    family: str
    ours: Measured  # of our variants the one that validation chose
    best: Measured  # of the peers
    rows: Sequence[Measured]

    def figure(self, row: Measured) -> float:
        """What it is judged by."""
        return row.mean[METRICS[self.family][0]]

    def ratio(self, other: Measured) -> Estimate:
        """Ours over another, of the metric or of the loss of a user, with its 95% interval."""
        metric = METRICS[self.family][2]
        return ratio_of_means(self.ours.per_user[metric], other.per_user[metric])

    def record(self) -> dict[str, Any]:
        """All figures, best first."""
        metric, is_more_better, compared = METRICS[self.family]
        ordered = sorted(self.rows, key=self.figure, reverse=is_more_better)
        rows = [
            {
                "name": row.peer,
                "setting": row.setting,
                "validation": row.validation,
                "test": row.mean,
                "by_seed": row.by_seed,
                "ours_over_it": None if row is self.ours else asdict(self.ratio(row)),
            }
            for row in ordered
        ]
        told = {"what": self.name, "metric": metric, "compared_by": compared}
        return told | {"ours": self.ours.peer, "best_peer": self.best.peer, "rows": rows}


def contest(
    name: str, family: str, rows: Sequence[Measured], variants: Sequence[str], peers: Sequence[str]
) -> Contest:
    """Ours against the peers; the linear path alone is neither, and stands among the rows. What
    is named no more is left out."""
    metric, is_more_better, _ = METRICS[family]
    by_name = [(row.peer.partition(".")[0], row) for row in rows]
    candidates = [row for name, row in by_name if name in variants and name != LINEAR]
    others = [row for name, row in by_name if name in peers]
    if not candidates or not others:
        raise UserError(f"{name}: needs answers of ours and of peers; has {[r.peer for r in rows]}")
    best = max(others, key=lambda row: row.mean[metric] * (1 if is_more_better else -1))
    ours = max(candidates, key=lambda row: row.validation)
    shown = [row for name, row in by_name if name in {*variants, *peers}]
    return Contest(name=name, family=family, ours=ours, best=best, rows=shown)


def contests(
    name: str, family: str, rows: Sequence[Measured], variants: Sequence[str], peers: Sequence[str]
) -> Iterator[Contest]:
    """One, or one for each number of clicks of cold users."""
    if family != "cold_users":
        yield contest(name, family, rows, variants, peers)
        return
    counts = {row.peer.rpartition(".")[2]: None for row in rows}
    for clicks in sorted(counts, key=int):
        own = [row for row in rows if row.peer.rpartition(".")[2] == clicks]
        yield contest(f"{name}, {clicks} clicks", family, own, variants, peers)


def bounds_of(found: Contest, required: Mapping[str, Any]) -> list[Bound]:
    """What is required: at least `times` the best peer (1: more than it), and more than `low` at
    the lower end of the interval; or `ahead` of the best peer by so much; or at `most` so much."""
    metric, value = METRICS[found.family][0], found.figure(found.ours)
    if "times" in required:
        ratio, told = found.ratio(found.best), f"{found.name}, {metric} over {found.best.peer}"
        sign = ">" if required["times"] == 1 else ">="
        bounds = [checked(told, ratio.value, sign, required["times"])]
        if "low" in required:
            bounds.append(checked(f"{told}, low end", ratio.low, ">", required["low"]))
        return bounds
    if "ahead" in required:
        ahead = value - found.figure(found.best)
        name = f"{found.name}, {metric} above {found.best.peer}"
        return [checked(name, ahead, ">=", required["ahead"])]
    return [checked(f"{found.name}, {metric}", value, "<=", required["most"])]


def as_text(record: Mapping[str, Any]) -> str:
    """A line each, with how ours compares."""
    lines = [f"\n{record['what']} (ours over each by {record['compared_by']})"]
    for row in record["rows"]:
        ratio = row["ours_over_it"]
        told = f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]" if ratio else ""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in row["test"].items())
        lines.append(f"  {row['name']:<22} validation {row['validation']:.4f}  {figures}  {told}")
    return "\n".join(lines)
