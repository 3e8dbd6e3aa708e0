"""The next batches made ready while the model works on this one: decoded, hashed, preprocessed and tokenised.

Threads are enough for that: Pillow, the processor and the tokenizer let the interpreter go while they work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
LOADERS = 2


def ahead(make: Callable[[Item], Made], items: Iterable[Item], loaders: int = LOADERS) -> Generator[Made]:
    """make(item) of each item in turn, made by that many threads, one result a thread ahead of who takes them.

    At most `loaders` results wait, whatever the number of items, which are taken from the caller's thread. What `make`
    raises is raised where its result would have come. Without loaders everything is made when it is asked for.
    """
    if loaders == 0:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(loaders, thread_name_prefix="loader")
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > loaders:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also where whoever takes them stops, or is interrupted
        pool.shutdown(wait=False)  # what was begun ends; nothing else waits, for there are as many threads
