"""Train a derived network, also in mixed precision and under torchrun; `--help` lists the flags."""

from tfnas.cli.train_eval import main

if __name__ == "__main__":
    raise SystemExit(main())
