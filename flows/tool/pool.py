"""Worker processes are started so that they leave nothing behind."""

import contextlib
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from lightfabric.flows.report import RunError


class ThisProcess(Executor):
    """Does at once, in this process, what is submitted to it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return a future that has ended; what the function raises is raised by its result."""
        future = Future[Any]()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def pool(most: int, preload: list[str]) -> Iterator[ProcessPoolExecutor]:
    """Start a process per core, at most ``most``, that hears no Ctrl-C and is gone after the block, at once if that fails.

    ``preload`` names modules that are imported once for all. A process that asks for more memory than the machine has gets
    a MemoryError. RunError when a process is killed.
    """
    count = min(_cores(), most)
    # A fork of this process would take the threads of its numeric libraries along in an unknown state.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    workers = ProcessPoolExecutor(count, context, initializer=_prepare)
    try:
        with interrupts_blocked():
            # A worker inherits the mask of signals at its start, so all are started while Ctrl-C is blocked.
            for _ in range(count):
                workers.submit(os.getpid)
        yield workers
    except BaseException as error:
        for child in multiprocessing.active_children():
            child.kill()
        if isinstance(error, BrokenProcessPool):
            raise RunError("a worker process ended early, perhaps for want of memory") from None
        raise
    finally:
        workers.shutdown(cancel_futures=True)


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Keep Ctrl-C from processes and threads started in the block: the mask is inherited.

    Nor does it cut the block short where another thread, say of a numeric library, hears it: it comes afterwards.
    """
    heard: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number)) if main else None
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if heard:
        signal.raise_signal(signal.SIGINT)


def _prepare() -> None:
    """Make a worker end when its parent does, even if that was killed, and fail by itself before the machine is full."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes(), resource.RLIM_INFINITY))
    parent = multiprocessing.parent_process()
    if parent:
        # os._exit, because a worker may be deep in a compiled kernel that never looks for exceptions.
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def memory_bytes() -> int:
    """Return how much memory one process may take: nine tenths of what the machine, or its container, has."""
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total_bytes = min(total_bytes, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total_bytes * 9 // 10


def peak_bytes() -> int:
    """Return the most memory that this process has held at once."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
