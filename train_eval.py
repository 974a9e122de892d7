"""Train a derived network in float32; `--help` lists the flags."""

from tfnas.cli.train_eval import FLOAT32_PROGRAM, main

if __name__ == "__main__":
    raise SystemExit(main(prog=FLOAT32_PROGRAM))
