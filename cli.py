"""`python cli.py ...` is `atp-eval ...` for a checkout that is not installed."""

from atp_eval.cli import main

if __name__ == "__main__":
    main()
