"""The folders of YAML files that lmms-eval reads (its `include_path`), and the names of our tasks in them.

The YAML files in `tasks/` include lmms-eval's own, which lmms-eval finds by absolute path only. So they are written
once more to the cache folder with the paths of this installation filled in: `${lmms_eval}`, and `${suite}` for the
embedded data. lmms-eval itself is not imported here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path
from string import Template

from atp_eval.benchmarks import BENCHMARKS, Suite
from atp_eval.errors import TaskFailure, UserError
from atp_eval.paths import data_folder
from atp_eval.scenes.suite import cache_folder, materialise

DATA_VARIABLE = "ATP_EVAL_DATA"


def local_data(dataset: str) -> Path | None:
    """The downloaded repository of a data set in the folder that `ATP_EVAL_DATA` names, if it is there.

    Raises UserError when the variable names no folder.
    """
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise UserError(f"{DATA_VARIABLE}={folder} is not a folder. Unset it, or name the folder with the data sets.")
    found = Path(folder).absolute() / dataset.split("/")[1]
    return found if found.is_dir() else None


def _lmms_eval() -> Path:
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        raise TaskFailure("lmms-eval is not installed. `pip install atp-eval` installs it.")
    return Path(next(iter(spec.submodule_search_locations)))


def _quoted(path: Path) -> str:
    """A path as it may stand between the double quotes of YAML."""
    return json.dumps(str(path), ensure_ascii=False)[1:-1]


def _rendered(suite: Suite) -> dict[str, str]:
    """Relative file name -> text."""
    places = {"lmms_eval": _quoted(_lmms_eval())}
    if suite == "mini":
        places["suite"] = _quoted(materialise())
    source = data_folder("tasks")
    files = {"utils.py": (source / "utils.py").read_text(encoding="utf-8")}
    for path in sorted((source / suite).glob("*.yaml")):
        text = Template(path.read_text(encoding="utf-8")).substitute(places)
        if suite == "real" and (local := local_data(BENCHMARKS[path.stem].dataset)):
            text += f'dataset_path: "{_quoted(local)}"\n'
        files[f"{suite}/{path.name}"] = text
    return files


def task_folder(suite: Suite) -> Path:
    """What lmms-eval takes as `include_path` for a suite; for `mini` the data is made first if need be.

    The task of a benchmark in it is `benchmark.task(suite)`. Raises OSError where the cache cannot be written.
    """
    files = _rendered(suite)
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
