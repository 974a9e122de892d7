"""`python -m tfnas COMMAND`."""

from tfnas.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
