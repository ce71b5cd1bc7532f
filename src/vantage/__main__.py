"""`python -m vantage`: the command line, for launchers that start modules."""

from vantage.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
