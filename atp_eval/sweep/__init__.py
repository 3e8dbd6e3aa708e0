"""Many methods at many budgets: one settings file, one command, a table and a figure."""

from atp_eval.sweep.planning import Planned, Shard, plan
from atp_eval.sweep.run import run_sweep
from atp_eval.sweep.settings import Family, Sweep, Trial, load_sweep, sweeps
from atp_eval.sweep.table import Line, Table, make_table

__all__ = [
    "Family",
    "Line",
    "Planned",
    "Shard",
    "Sweep",
    "Table",
    "Trial",
    "load_sweep",
    "make_table",
    "plan",
    "run_sweep",
    "sweeps",
]
