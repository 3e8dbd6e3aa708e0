"""Work shared out over workers that may be killed: processes of this machine, or actors of a Ray cluster.

A *task* is any object that pickles; *work* is a callable that pickles, called with a task in a worker, where it may
keep what it loads (a model) from one task to the next. Nothing here knows of models or benchmarks, and importing it is
cheap, since every new process does.
"""

from atp_eval.workers.crew import TRIES, Crew, Ended, Watcher, share_out
from atp_eval.workers.processes import Processes

__all__ = ["TRIES", "Crew", "Ended", "Processes", "Watcher", "share_out"]
