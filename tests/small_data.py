"""A data folder of a few rows, for tests that change a part of it."""

from collections.abc import Mapping
from pathlib import Path

# Train: i1 and i2 alone. Held out: i3 (validation of u1), i4 and i5 (test of u1 and u2).
# u1 ties on the last two times; u3 has too few interactions to hold any out; u4 and i6 have none.
SMALL: Mapping[str, str] = {
    "users.csv": """user_id,age,job
u1,20,cook
u2,30,nurse
u3,,cook
u4,70,pilot
""",
    "items.csv": """item_id,title,year,genres
i1,One,1990,a|b
i2,Two,2000,b
i3,Three,,c
i4,"Four, The",2010,
i5,Five,2020,a|d
i6,Six,2030,b
""",
    "interactions.csv": """user,item,rating,time
u2,i2,1,5
u1,i1,5,1
u1,i2,3,2
u2,i1,4,4
u1,i3,4,3
u1,i4,2,3
u3,i1,4,1
u2,i5,5,6
u3,i2,,2
""",
    "schema.yaml": """users:
  id: user_id
  features: {age: {kind: numeric, buckets: 2}, job: categorical}
items:
  id: item_id
  features: {year: {kind: numeric, buckets: 2}, genres: {kind: multi, separator: "|"}}
  text: {title: "{title} ({year}). {genres}"}
interactions:
  user: user
  item: item
  time: time
  labels: {like: {kind: binary, value: "rating >= 4"}, rating: {kind: ordinal}}
  repeats: false
""",
}


def write_folder(folder: Path, changes: Mapping[str, tuple[str, str]] | None = None) -> Path:
    """Write the small data; `changes` replaces, by file, one text that is there with another."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in SMALL.items():
        old, new = (changes or {}).get(name, ("", ""))
        assert old in content
        (folder / name).write_text(content.replace(old, new), encoding="utf-8")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, to see whether something was changed."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
