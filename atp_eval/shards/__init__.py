"""One run by many processes: each answers a share of the batches into a part of the run folder.

Three ways to start it: `--workers N`, `--ray`, and `torchrun -m atp_eval run`. The answers are those of one process.
"""
