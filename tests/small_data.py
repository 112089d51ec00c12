"""Data folders of a few rows, for tests that change a part of them."""

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

# A log of ten impressions without users and items in files. The last is test, the one before it
# validation; only there is the device "tv".
LOG: Mapping[str, str] = {
    "interactions.csv": """user,item,time,click,price,device,tags,place,said
7,b,10,1,3.5,phone,x|y,1;0,good
8,a,10,0,1,web,y,0;1,
7,a,20,0,,phone,,1;1,bad
7,c,20,1,2,,x,,fine
8,b,30,1,2,web,z|x,0;0,great
7,a,30,0,8,web,x,1;0,
8,c,40,0,9,phone,y,0;1,poor
7,b,40,1,4,phone,y|x,1;1,nice
9,d,50,1,100,tv,w,0;0,new
7,a,60,0,200,tv,w,1;0,last
""",
    "schema.yaml": """items: {id: item, text: {said: {interactions: "{said}", most: 2}}}
interactions:
  user: user
  item: item
  time: time
  context:
    price: {kind: numeric, buckets: 2}
    device: categorical
    tags: {kind: multi, separator: "|"}
    place: {kind: vector, separator: ";"}
  labels: {click: binary, paid: {kind: binary, value: "price >= 3", where: "click == 1"}}
  history: click == 1
  positives: click == 1
  order: by_log
""",
}


def write_folder(
    folder: Path,
    changes: Mapping[str, tuple[str, str]] | None = None,
    files: Mapping[str, str] = SMALL,
) -> Path:
    """Write the small data; `changes` replaces, by file, one text that is there with another."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        old, new = (changes or {}).get(name, ("", ""))
        assert old in content
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content.replace(old, new), encoding="utf-8")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, to see whether something was changed."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
