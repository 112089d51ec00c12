"""`flm plan`: where a cluster's ranks would hold a model's tables, and what a step would take.

The cluster need not exist here. `flm plan calibrate` measures this machine for it.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flm_torchrec.errors import UserError, app
from flm_torchrec.files import atomic_file
from flm_torchrec.planning.cluster import Cluster, parse_bandwidth, parse_bytes, parse_sizes
from flm_torchrec.planning.tables import Table, preset, read_tables

if TYPE_CHECKING:
    from flm_torchrec.planning.findings import Finding
    from flm_torchrec.planning.request import Request

T = TypeVar("T")

# Nothing heavy is imported before the arguments are read.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is planned."""

    name: str
    tables: tuple[Table, ...]
    batch_size: dict[int, int]  # by world size
    types: str
    constraints: dict[str, str]
    optimizer: str
    communication: str
    calibration: Path | None
    findings: "list[Finding]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flm plan",
        description=__doc__,
        epilog="flm plan calibrate --help tells how to measure this machine",
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--preset", help="tables of a known model, such as dlrm-v2")
    what.add_argument("--tables", type=Path, help="a YAML file of tables")
    what.add_argument("--config", help="the YAML of a run, whose data must be here")
    add("--world-size", default="8", help="ranks; several, as 8,64,512, are compared")
    add("--local-world-size", type=int, help="ranks a host; 8, or all where they are fewer")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="of the cluster")
    add("--hbm", help="memory of a GPU, as 80GB")
    add("--host-memory", help="memory of a host, as 1TB")
    add("--intra-bandwidth", help="of a rank within its host, as 600GB/s")
    add("--inter-bandwidth", help="of a rank between hosts, as 25GB/s")
    add("--batch-size", type=int, help="samples of one rank; 1024, or as --config has it")
    add("--optimizer", help="of the tables; rowwise_adagrad, or as --config has it")
    add(
        "--sharding",
        help="types to choose from, as row_wise or table_wise,row_wise; all: every type but "
        "data_parallel (default); auto: what training chooses from",
    )
    add("--calibration", type=Path, help="a file of flm plan calibrate; or as --config has it")
    add("overrides", nargs="*", metavar="key=value", help="of --config, as data.path=mine")
    add("--out", type=Path, help="an HTML page to write")
    add("--json", action="store_true", help="print all of it as JSON")
    return parser


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Plan, print, and return 1 when nothing fits."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["calibrate"]:
        from flm_apps.calibrate import main as calibrate

        return int(calibrate(arguments[1:]) or 0)
    asked = _parser().parse_args(arguments)
    clusters = _clusters(asked)
    tables = _tables(asked)
    from flm_apps.planned import Outcome, as_json, lines, page_of

    from flm_torchrec.planning.alternatives import by_family
    from flm_torchrec.planning.findings import findings
    from flm_torchrec.planning.plan import Planned, make_plan

    subject = _subject(asked, tables, clusters)
    outcomes = []
    for cluster in clusters:
        request = _request(asked, subject, cluster)
        plan = make_plan(request)
        families = by_family(request) if isinstance(plan, Planned) else {}
        outcomes.append(Outcome(plan, families, [*findings(plan), *subject.findings]))
    if asked.out is not None:
        with atomic_file(asked.out) as file:
            file.write_text(page_of(subject.name, outcomes), encoding="utf-8")
    if asked.json:
        print(json.dumps(as_json(subject.name, outcomes), indent=1))
    else:
        print("\n".join(lines(subject.name, outcomes)))
    return 0 if any(isinstance(outcome.plan, Planned) for outcome in outcomes) else 1


def _clusters(asked: argparse.Namespace) -> list[Cluster]:
    clusters = []
    for size in parse_sizes(asked.world_size):
        local = min(8, size) if asked.local_world_size is None else asked.local_world_size
        clusters.append(
            Cluster(
                world_size=size,
                local_world_size=local,
                device=asked.device,
                hbm=_parsed(parse_bytes, asked.hbm, "--hbm"),
                host_memory=_parsed(parse_bytes, asked.host_memory, "--host-memory"),
                intra_bandwidth=_parsed(
                    parse_bandwidth, asked.intra_bandwidth, "--intra-bandwidth"
                ),
                inter_bandwidth=_parsed(
                    parse_bandwidth, asked.inter_bandwidth, "--inter-bandwidth"
                ),
            )
        )
    return clusters


def _parsed(parse: Callable[[str, str], T], text: str | None, option: str) -> T | None:
    return None if text is None else parse(text, option)


def _tables(asked: argparse.Namespace) -> tuple[Table, ...] | None:
    """Those of a preset or file; None where a run's YAML is given."""
    if asked.overrides and asked.config is None:
        raise UserError(f"{asked.overrides[0]}: settings belong to --config, which is not given")
    if asked.preset is not None:
        return preset(asked.preset)
    if asked.tables is not None:
        return read_tables(asked.tables)
    if asked.config is None:
        raise UserError("flm plan: what is to be planned? give --preset, --tables or --config")
    return None


def _subject(
    asked: argparse.Namespace, tables: tuple[Table, ...] | None, clusters: Sequence[Cluster]
) -> _Subject:
    sizes = [cluster.world_size for cluster in clusters]
    if tables is not None:
        return _Subject(
            name=asked.preset or str(asked.tables),
            tables=tables,
            batch_size=dict.fromkeys(sizes, 1024 if asked.batch_size is None else asked.batch_size),
            types="all" if asked.sharding is None else asked.sharding,
            constraints={},
            optimizer=asked.optimizer or "rowwise_adagrad",
            communication="fp32",
            calibration=asked.calibration,
            findings=[],
        )
    from flm_apps.configured import configured

    run = configured(asked.config, asked.overrides)
    return _Subject(
        name=asked.config,
        tables=run.tables,
        batch_size={
            size: run.batch_size(size) if asked.batch_size is None else asked.batch_size
            for size in sizes
        },
        types=asked.sharding or run.config.sharding.get("default", "auto"),
        constraints={} if asked.sharding else run.own_sharding,
        optimizer=asked.optimizer or run.config.train.sparse.optimizer,
        communication=run.config.train.sparse.communication,
        calibration=asked.calibration or run.config.calibration,
        findings=run.findings,
    )


def _request(asked: argparse.Namespace, subject: _Subject, cluster: Cluster) -> "Request":
    from flm_torchrec.planning.calibration import read_calibration
    from flm_torchrec.planning.request import MODEL_PARALLEL, Request
    from flm_torchrec.training.placing import AUTO

    named = {"all": MODEL_PARALLEL, "auto": AUTO}
    # Where it was said: on the command line or in the run's YAML.
    option = "calibration:" if asked.calibration is None else "--calibration"
    known = subject.calibration
    return Request(
        tables=subject.tables,
        cluster=cluster,
        batch_size=subject.batch_size[cluster.world_size],
        optimizer=subject.optimizer,
        types=named.get(subject.types, tuple(kind.strip() for kind in subject.types.split(","))),
        constraints=subject.constraints,
        calibration=None if known is None else read_calibration(known, option=option),
        communication=subject.communication,
    )


if __name__ == "__main__":
    raise SystemExit(main())
