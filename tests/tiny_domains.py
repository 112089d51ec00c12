"""Data folders of domains that share no feature: the small movies, some music, and planted ones."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from small_data import write_folder

from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.domains import joined
from flm_torchrec.data.prepare import prepare

# Train: s1 and s2. Held out: s3 (validation of u1) and s4 (test of u1). The id u1 is another user's
# than that of the movies.
MUSIC: Mapping[str, str] = {
    "users.csv": "listener,country\nu1,fi\nu9,de\n",
    "items.csv": "song,artist,length,title,words\ns1,ann,3,One,la\ns2,bob,4,Two,\n"
    "s3,ann,,Three,na na\ns4,cy,5,Four,\n",
    "interactions.csv": "user,item,rating,skipped,time\nu9,s2,3,0,9\nu1,s1,5,1,1\nu1,s2,10,0,2\n"
    "u1,s3,2,0,3\nu1,s4,1,1,4\n",
    "schema.yaml": """users: {id: listener, features: {country: categorical}}
items:
  id: song
  features: {artist: categorical, length: numeric}
  text: {title: "{title}", lyrics: "{words}"}
interactions:
  user: user
  item: item
  time: time
  labels: {rating: {kind: ordinal}, skipped: binary}
  repeats: false
""",
}


def movies_and_music(folder: Path, *, shared_heads: bool = True) -> Dataset:
    movies = prepare(write_folder(folder / "movies"))
    music = prepare(write_folder(folder / "music", files=MUSIC))
    return joined({"movies": movies, "music": music}, shared_heads=shared_heads)


def planted(folder: Path, name: str, *, users: int = 48, seed: int = 0) -> Path:
    """Half of the users like what is red, the others what is blue; titles say which it is."""
    rng = np.random.default_rng(seed)
    things = ("car", "boat", "plane", "train")
    titles = [
        f"{colour} {colour} {colour} {age}{thing}"
        for colour in ("red", "blue")
        for age in ("", "old ")
        for thing in things
    ]
    met = [
        f"{user},{name}{8 * (user % 2) + place},{step}"
        for user in range(users)
        for step, place in enumerate(rng.permutation(8)[:6])
    ]
    files = {
        "items.csv": "\n".join(
            ["id,title,kind", *(f"{name}{n},{title},{n % 3}" for n, title in enumerate(titles))]
        ),
        "interactions.csv": "\n".join(["user,item,time", *met]),
        "schema.yaml": 'items: {id: id, features: {kind: categorical}, text: {title: "{title}"}}\n'
        "interactions: {user: user, item: item, time: time, labels: {met: always}, "
        "repeats: false}\n",
    }
    return write_folder(folder / name, files=files)
