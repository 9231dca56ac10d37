"""The workers of a Dask scheduler do what processes of this machine do otherwise."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from typing import Any

from lightfabric.flows.report import InputError, RunError
from lightfabric.flows.tool.journal import key_of

SECONDS = 30
"""A scheduler has so long to answer, and to have a worker."""


def require() -> None:
    """Raise InputError unless ``distributed`` is installed."""
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise InputError("--cluster must be left out unless lightfabric[cluster] is installed, which brings Dask") from None


@contextlib.contextmanager
def scheduler(address: str) -> Iterator[Executor]:
    """Give the workers of the scheduler at ``address``; what one that is lost was doing, another does.

    InputError if no scheduler is there or its workers are none or have other sources than this process; RunError in the
    block if the scheduler is lost, or several workers by the same task.
    """
    from distributed import Client
    from distributed.scheduler import KilledWorker

    try:
        client = Client(address, timeout=SECONDS)
    except (OSError, ValueError) as error:
        raise InputError(f"--cluster must be the address of a Dask scheduler, not {address}: {error}") from None
    with client:
        _require_same_sources(client, address)
        # Otherwise equal calls have equal names, which takes a hash of everything that they are given.
        workers = client.get_executor(pure=False)
        try:
            yield workers
        except KilledWorker as error:
            raise RunError(f"a task has ended several workers, perhaps for want of memory: {error}") from None
        except CancelledError:
            raise RunError(f"the scheduler at {address} is lost") from None


def _require_same_sources(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=SECONDS)
        sources = client.run(_sources)
    except TimeoutError:
        raise InputError(f"--cluster must be a scheduler with workers, not {address}") from None
    except ImportError as error:
        raise InputError(f"--cluster must be of workers with lightfabric installed, not {address}: {error}") from None
    others = sorted(worker for worker, theirs in sources.items() if theirs != _sources())
    if others:
        raise InputError(f"--cluster must be of workers with the sources of this lightfabric, not {others[0]}")


def _sources() -> tuple[str, str]:
    """Hash what simulates cells and what measures timing."""
    from lightfabric.sim.characterize import rtl_hash

    return key_of(""), rtl_hash()
