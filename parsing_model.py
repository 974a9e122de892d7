"""Write out and show what a search found: `python parsing_model.py --model_path RUN_DIR`; `--help` lists the flags."""

from tfnas.cli.parsing_model import main

if __name__ == "__main__":
    raise SystemExit(main())
