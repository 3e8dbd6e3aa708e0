"""The folders of YAML files that lmms-eval reads (its `include_path`), and the names of our tasks in them.

The YAML files in `tasks/` include lmms-eval's own, which lmms-eval finds by absolute path only. So they are written
once more to the cache folder with the paths of this installation filled in: `${lmms_eval}`, and `${suite}` for the
embedded data. `atp-eval tasks mini` prints the folder. lmms-eval itself is not imported here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path
from string import Template

from atp_eval.benchmarks import BENCHMARKS, Benchmark, Suite
from atp_eval.errors import TaskFailure, UserError
from atp_eval.paths import data_folder
from atp_eval.scenes.suite import cache_folder, materialise

DATA_VARIABLE = "ATP_EVAL_DATA"


def local_files(benchmark: Benchmark) -> list[Path]:
    """The parquet files of a benchmark's split in a downloaded copy of its repository, in the folder `ATP_EVAL_DATA`.

    Empty where the variable is not set or the folder lacks the repository: the hub, or its cache, is asked then.
    Raises UserError when the variable names no folder, or the copy lacks this split.
    """
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        return []
    if not Path(folder).is_dir():
        raise UserError(f"{DATA_VARIABLE}={folder} is not a folder. Unset it, or name the folder with the data sets.")
    copy = Path(folder).absolute() / benchmark.dataset.split("/")[1]
    if not copy.is_dir():
        return []
    files = sorted(copy.glob(f"**/{benchmark.config or ''}/{benchmark.split}-*.parquet"))
    if not files:
        wanted = f"{benchmark.config or 'data'}/{benchmark.split}-*.parquet"
        raise UserError(
            f"{copy} has no {wanted}. Download them: hf download --repo-type dataset {benchmark.dataset} ..."
        )
    return files


def _lmms_eval() -> Path:
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        raise TaskFailure("lmms-eval is not installed. `pip install atp-eval` installs it.")
    return Path(next(iter(spec.submodule_search_locations)))


def _quoted(path: Path) -> str:
    """A path as it may stand between the double quotes of YAML."""
    return json.dumps(str(path), ensure_ascii=False)[1:-1]


def _data(benchmark: Benchmark) -> dict[str, str]:
    """Where a real task finds its rows, as YAML values."""
    # On the hub lmms-eval's own `token: true` would fail without a login, which public data does not need.
    local = {benchmark.split: [str(path) for path in local_files(benchmark)]}
    files = {"data_files": local} if local[benchmark.split] else None
    return {
        "dataset": "parquet" if files else benchmark.dataset,
        "config": json.dumps(benchmark.config),
        "files": json.dumps(files, ensure_ascii=False),
    }


def _rendered(suite: Suite) -> dict[str, str]:
    """Relative file name -> text."""
    source = data_folder("tasks")
    places = {"lmms_eval": _quoted(_lmms_eval())}
    if suite == "mini":
        places["suite"] = _quoted(materialise())
    files = {"utils.py": (source / "utils.py").read_text(encoding="utf-8")}
    for path in sorted((source / suite).glob("*.yaml")):
        text = Template(path.read_text(encoding="utf-8"))
        own = _data(BENCHMARKS[path.stem]) if suite == "real" else {}
        files[f"{suite}/{path.name}"] = text.substitute(places, **own)
    return files


def task_folder(suite: Suite) -> Path:
    """What lmms-eval takes as `include_path` for a suite; for `mini` the data is made first if need be.

    The task of a benchmark in it is `benchmark.task(suite)`. Raises UserError where the cache cannot be written.
    """
    try:
        return _write(suite, _rendered(suite))
    except OSError as error:
        where = f"{cache_folder()}: {error.strerror or error}"
        raise UserError(f"cannot write to {where}. Name another folder with ATP_EVAL_CACHE.") from None


def _write(suite: Suite, files: dict[str, str]) -> Path:
    """The folder of the files, which is named after their content."""
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache_folder() / f"tasks-{digest}"
    if not all((folder / name).is_file() for name in files):
        building = folder.with_name(f".{folder.name}.{os.getpid()}")
        for name, text in files.items():
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            (building / name).write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(building, folder)
        except OSError:  # another process was faster
            shutil.rmtree(building, ignore_errors=True)
    return folder / suite
