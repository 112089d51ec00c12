"""`flm doctor [--json]`: check this machine and environment; exit code 1 when a check fails."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from flm_torchrec.errors import app
from flm_torchrec.planning.doctor import examine


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Print one line a check, and under a check that is not ok the command that repairs it."""
    parser = argparse.ArgumentParser(prog="flm doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    json_wanted = parser.parse_args(argv).json
    checks = examine()
    failed = any(check.status == "FAIL" for check in checks)
    if json_wanted:
        print(json.dumps({"passed": not failed, "checks": [asdict(c) for c in checks]}, indent=2))
        return int(failed)
    for check in checks:
        print(f"{check.status:<5}{check.name:<14} {check.detail}")
        if check.repair:
            print(f"{'':20}repair: {check.repair}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
