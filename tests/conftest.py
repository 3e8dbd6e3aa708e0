"""Settings of every test: no network, one thread, and a suite that is made once and kept beside pytest's own cache."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads wait for each other, on a busy machine most of the time
os.environ.setdefault("ATP_EVAL_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "atp_eval"))

# A busy machine makes no example wrong.
settings.register_profile("atp_eval", deadline=None)
settings.load_profile("atp_eval")
