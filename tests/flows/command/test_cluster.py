"""A study on the workers of a Dask scheduler has the rows of one in this process, whatever becomes of a worker."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from lightfabric.flows.command import study
from lightfabric.flows.format.spec_file import Variant, load_spec

distributed = pytest.importorskip("distributed")
CLI = [sys.executable, "-c"]
RUN = "import sys; sys.argv[1:] = {!r}; {}; from lightfabric.flows.cli import main; main()"


@pytest.fixture(scope="module")
def cluster():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(**options) as started:
        yield started


def refused(*arguments, before="pass"):
    script = RUN.format(["study", *arguments], before)
    done = subprocess.run([*CLI, script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr.strip()


def test_a_killed_worker_costs_no_row_and_makes_none_twice(cluster, invented_timing):
    spec = replace(load_spec(None, "prototype"), gpus=(2, 4, 8))
    known = [(Variant({}, spec), study.check(spec, "x"))]

    def timings(chiplets, _):
        return [invented_timing for _ in chiplets]

    alone, _, _ = study.run(known, timings, alone=True)
    finished, killed = [], []

    def kill(name, done, total):
        finished.append((name, done, total))
        if not killed:
            killed.append(cluster.workers[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    rows, _, _ = study.run(known, timings, kill, cluster=cluster.scheduler_address)
    assert rows == alone
    assert len(rows) == len(spec.fabrics) * 3
    assert [done for _, done, _ in finished] == list(range(1, len(rows) + 1))
    assert len({name for name, _, _ in finished}) == len(rows)


def test_without_dask_the_option_says_what_to_install():
    said = refused("--cluster", "tcp://127.0.0.1:1", before="sys.modules['distributed'] = None")
    assert said == "lightfabric: --cluster must be left out unless lightfabric[cluster] is installed, which brings Dask"


def test_an_address_of_no_scheduler_is_refused(tmp_path):
    said = refused("--cluster", "nonsense://x", "--out", str(tmp_path / "out"))
    assert said.startswith("lightfabric: --cluster must be the address of a Dask scheduler, not nonsense://x")
    assert not (tmp_path / "out").exists()
