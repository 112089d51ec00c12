"""Peers that meet users for the first time: `python -m flm_benchmarks.peers.cold_users`.

A peer is tuned and asked for each number of clicks: NAME.CLICKS.
"""

from flm_benchmarks.peers import cold_start, collaborative
from flm_benchmarks.peers.split_log import CLICKS, cold_users
from flm_benchmarks.peers.units import main

K = 10
MODELS: dict[str, cold_start.Model] = {
    "popularity": cold_start.popular,
    "item_knn": cold_start.item_to_item(collaborative.item_knn),
    "ease": cold_start.item_to_item(collaborative.ease),
}
PEERS = {
    f"{name}.{clicks}": cold_start.cold_peer(name, model, cold_users(clicks), k=K)
    for name, model in MODELS.items()
    for clicks in CLICKS
}

if __name__ == "__main__":
    raise SystemExit(main("cold_users", PEERS))
