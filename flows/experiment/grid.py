"""The cells of a study are run by workers, the largest first, and kept in a journal as they finish."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict

from lightfabric.flows.experiment.cell import Cell, Job, Row, simulate
from lightfabric.flows.experiment.fidelity import Detail
from lightfabric.flows.report import RunError
from lightfabric.flows.tool.journal import Journal, key_of

Progress = Callable[[str, int, int], None]
"""Hears what was done, and how many of how many jobs are done now."""


def simulated(workers: Executor, cells: list[Job], progress: Progress, journal: Journal | None) -> dict[Job, Cell]:
    """Run the cells that ``journal`` does not have, and return what all of them show; RunError if a worker is lost."""
    found = _kept(journal, cells) if journal else {}
    # Those that take longest first: the largest, and where distance counts and relays make long ways.
    waiting = [job for job in cells if not job.reason and job not in found]
    waiting.sort(key=lambda job: (-job.gpus, not job.fabric.folds))
    futures = {workers.submit(simulate, job): job for job in waiting}
    total = len(futures) + len(found)
    if found:
        progress("kept of an earlier run", len(found), total)
    for job, cell in _finished(futures):
        found[job] = cell
        # Another run may have more memory.
        if journal and cell[0]["fits"]:
            journal.keep(key(job), _plain(cell))
        progress(job.name, len(found), total)
    return found | {job: simulate(job) for job in cells if job.reason}


def _finished(futures: dict["Future[Cell]", Job]) -> Iterator[tuple[Job, Cell]]:
    for future in as_completed(futures):
        try:
            yield futures[future], future.result()
        except ValueError as error:
            raise RunError(f"{futures[future].name}: {error}") from None
        except BrokenProcessPool:
            # Processes take one cell more than they work on.
            begun = "; ".join(job.name for each, job in futures.items() if each.running()) or "none"
            raise RunError(f"a worker process ended early, perhaps for want of memory; of these cells: {begun}") from None


def key(job: Job) -> str:
    """Hash all that the result of a cell depends on, but not what it is called."""
    spec = job.spec
    parts = (spec.accelerator, spec.job, spec.plan, spec.chiplet, job.fabric.spec)
    return key_of([*(asdict(part) for part in parts), job.fabric.measured.to_dict(), job.gpus, job.fidelity])


def _plain(cell: Cell) -> Row:
    row, detail = cell
    assert detail, "what fits has been run"
    strips = {name: share.tolist() for name, share in detail.strips.items()}
    return {"row": row, "detail": [detail.nodes, detail.load.tolist(), detail.messages.tolist(), strips]}


def _kept(journal: Journal, cells: list[Job]) -> dict[Job, Cell]:
    import numpy as np

    found = dict[Job, Cell]()
    for job in cells:
        if known := journal.found.get(key(job)):
            nodes, load, messages, strips = known["detail"]
            strips = {name: np.array(each) for name, each in strips.items()}
            found[job] = known["row"], Detail(nodes, np.array(load), np.array(messages, np.int64), strips)
    return found
