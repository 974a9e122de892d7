"""Search for a network that meets a latency: `python train_search.py --target_lat 15`; `--help` lists the flags."""

from tfnas.cli.train_search import main

if __name__ == "__main__":
    raise SystemExit(main())
