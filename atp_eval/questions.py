"""A benchmark's questions as lmms-eval asks them, any of them at any time: it makes all of them before it asks one."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_eval.api.instance import Instance
from lmms_eval.api.task import Task

from atp_eval.asks import Ask
from atp_eval.backend import Answering


class Questions:
    """The first `limit` documents of a task, or all; `view` turns requests into Asks."""

    def __init__(self, view: Answering, task: Task, limit: int | None) -> None:
        self.view, self.task, self.limit = view, task, limit
        view.task_dict[task.config.task] = task.dataset
        self._documents = task.eval_docs_no_media

    def __len__(self) -> int:
        found = len(self._documents)
        return min(found, self.limit) if self.limit else found

    def asks(self, doc_ids: Sequence[int]) -> list[Ask]:
        """Some of the questions."""
        documents = self._documents.__getitems__(list(doc_ids))
        requests = [self._request(number, doc) for number, doc in zip(doc_ids, documents, strict=True)]
        return self.view.asks(requests)

    def _request(self, doc_id: int, doc: object) -> Instance:
        """What `Task.build_all_requests` makes of a document."""
        task, config = self.task, self.task.config
        context = task.fewshot_context(doc, config.num_fewshot or 0)
        split = config.test_split if task.has_test_docs() else config.validation_split
        metadata = {"task": config.task, "doc_id": doc_id, "repeats": config.repeats, "split": split}
        if isinstance(config.metadata, dict):
            metadata |= config.metadata
        return task.construct_requests(doc_id=doc_id, ctx=context, metadata=metadata)
