"""`flm bench-sharding`: time a training step of a few tables under each sharding type."""

from flm_benchmarks.sharding.run import main

if __name__ == "__main__":
    raise SystemExit(main())
