"""Test a trained network on images: `python test.py --model_path RUN_DIR`; `--help` lists the flags."""

from tfnas.cli.test import main

if __name__ == "__main__":
    raise SystemExit(main())
