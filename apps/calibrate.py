"""`flm plan calibrate`: measure this machine for `flm plan --calibration`.

Several ranks also measure what they exchange:
torchrun --nproc_per_node 2 -m flm_apps.calibrate --out calibration.json
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from flm_torchrec.errors import UserError, app
from flm_torchrec.planning.calibrate import calibrate
from flm_torchrec.planning.calibration import write_calibration
from flm_torchrec.planning.ids import parse_ids
from flm_torchrec.training.runtime import start


@record
@app
def main(argv: Sequence[str] | None = None) -> int:
    """Measure on all ranks and write the file on the first."""
    parser = argparse.ArgumentParser(
        prog="flm plan calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("calibration.json"), help="the file")
    parser.add_argument("--repeats", type=int, default=20, help="of each measurement")
    parser.add_argument(
        "--ids", default="uniform", help="how often rows are met: uniform, or zipf:EXPONENT"
    )
    parser.add_argument("--short", action="store_true", help="a few points only, for a try")
    asked = parser.parse_args(argv)
    if asked.repeats < 1:
        raise UserError(f"--repeats: {asked.repeats}; allowed: 1 or more")
    ids = parse_ids(asked.ids)
    with start() as runtime:
        found = calibrate(runtime, repeats=asked.repeats, ids=ids, is_short=asked.short)
        if runtime.rank == 0:
            write_calibration(asked.out, found)
            steps = found.steps
            assert steps is not None
            print(
                f"{asked.out}: {found.world_size} {found.device} ranks, copies "
                f"{found.copy_bandwidth / 1e9:.1f} GB/s\n"
                f"steps predicted from the others: median error {steps.error:.0%}, "
                f"rank correlation {steps.rank_correlation:.2f}; by TorchRec's constants "
                f"{steps.torchrec_error:.0%}, {steps.torchrec_rank_correlation:.2f}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
