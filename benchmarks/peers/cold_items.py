"""Peers that rank items which training never saw: `python -m flm_benchmarks.peers.cold_items`."""

from flm_benchmarks.peers import cold_start
from flm_benchmarks.peers.split_log import cold_items
from flm_benchmarks.peers.units import main

K = 20
MODELS: dict[str, cold_start.Model] = {
    "content_knn": cold_start.by_content_knn,
    "ridge_popularity": cold_start.by_popularity,
    "ridge_ease": cold_start.by_ease_columns,
}
PEERS = {name: cold_start.cold_peer(name, model, cold_items, k=K) for name, model in MODELS.items()}

if __name__ == "__main__":
    raise SystemExit(main("cold_items", PEERS))
