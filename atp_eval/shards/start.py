"""The ways to start a run: alone, with workers of this machine or of a Ray cluster, or as one of torchrun's ranks."""

from __future__ import annotations

from atp_eval.config import RunConfig
from atp_eval.errors import UserError
from atp_eval.run import Finished, evaluate


def start(config: RunConfig, workers: int | None = None, ray: str | None = None) -> Finished | None:
    """Answer and score; None where this process is a rank that leaves the end to another one.

    Raises UserError and TaskFailure as `run.evaluate` does.
    """
    from atp_eval.shards.company import join
    from atp_eval.shards.together import Workers

    together, company = Workers.of(workers, ray), join()
    if company is not None:
        if together is not None:
            raise UserError("--workers and --ray start processes of their own; leave them out under torchrun")
        from atp_eval.shards.ranks import evaluate_as_rank

        return evaluate_as_rank(config, company)
    if together is None:
        return evaluate(config)
    from atp_eval.shards.run import evaluate_together

    return evaluate_together(config, together)
