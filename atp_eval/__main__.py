"""`python -m atp_eval` is `atp-eval`."""

from atp_eval.cli import main

if __name__ == "__main__":
    main()
