"""Files of a few rows in the layouts of public data sets, and the data folders made of them."""

import json
from collections.abc import Mapping
from pathlib import Path

from flm_apps import data as data_app
from small_data import write_folder
from tiny_model import WORDS

NEWS = "".join(
    f"N{n}\t{('sports', 'news')[n % 2]}\tsub{n % 3}\tred boat {n}\t{about}\thttps://x/{n}\t[]\t[]\n"
    for n, about in enumerate(["blue train", "", "old car", "plane", "", "car", "boat"])
)
BEHAVIORS = "".join(
    f"{n}\tU{n % 4}\t11/{n + 1}/2019 {n % 12 + 1}:00:00 {('AM', 'PM')[n % 2]}\t"
    f"{'N0 N5' if n % 3 else ''}\tN{n % 7}-{n % 2} N{(n + 3) % 7}-{1 - n % 2}\n"
    for n in range(20)
)
CLICKS = "".join(
    "\t".join(
        [
            str(n % 3 % 2),
            *("" if (n + i) % 4 == 0 else str(n * i - 1) for i in range(13)),
            *("" if (n + c) % 9 == 0 else f"{n % 3 * 1000 + c:08x}" for c in range(26)),
        ]
    )
    + "\n"
    for n in range(20)
)
REVIEWS = "".join(
    json.dumps(
        {
            "reviewerID": f"A{n % 2}",
            "asin": f"B{(n // 2 + 3 * (n % 2)) % 6}",
            "overall": float(1 + n % 5),
            "unixReviewTime": 1_400_000_000 + 86_400 * n,
            "summary": WORDS[n % 7],
            "reviewText": f"{WORDS[(n + 1) % 7]} {WORDS[(n + 2) % 7]}",
        }
    )
    + "\n"
    for n in range(12)
)


def converted(layout: str, files: Mapping[str, str], folder: Path) -> Path:
    """The data folder of a layout's files."""
    source = write_folder(folder / "source", files=files)
    path = source / "reviews.json" if layout == "amazon" else source
    out = folder / "data"
    assert data_app.main(["convert", layout, str(path), "--out", str(out)]) == 0
    return out
