"""Ray tasks, on a cluster of two nodes that this machine plays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiment.executors.parties import NUM_UNITS, ROOT, STUDY, all_units, merged
from tests.experiment.studies import outcome, write_study
from vlmkit.experiment.executors.about import read_workers
from vlmkit.experiment.runner import run_experiment

pytest.importorskip("ray", reason="Ray is not installed: vlmkit[ray]")

# A process of its own: Ray leaves files open that Python warns of.
SCRIPT = """
import json, sys
from ray.cluster_utils import Cluster
from tests.experiment.executors.killing import Killing
from vlmkit.errors import VlmkitError
from vlmkit.experiment.executors import run_with

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
for _ in range(2):
    cluster.add_node(num_cpus=1, resources={"accelerator": 1})
address = {"address": cluster.address}
try:
    run_with("ray", sys.argv[1], sys.argv[2] + "-refused", resources={**address, "tpu": 1})
    refused = ""
except VlmkitError as error:
    refused = str(error)
progress = Killing(sys.argv[2], after=5)
run = run_with("ray", sys.argv[1], sys.argv[2], num_workers=2, lease_s=1.0, batch_size=3,
               resources=address, progress=progress)
print(json.dumps([run.status, run.num_done, run.num_errors, progress.killed, refused]))
"""


def test_a_cluster_of_two_workers_of_which_one_is_killed_ends_with_a_local_runs_records(
    tmp_path: Path,
) -> None:
    path, folder = write_study(tmp_path, STUDY), tmp_path / "run"
    reply = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert reply.returncode == 0, reply.stderr
    status, done, errors, killed, refused = json.loads(reply.stdout.splitlines()[-1])
    assert (status, done, errors) == ("complete", NUM_UNITS, 0)
    assert merged(folder) == outcome(run_experiment(path, tmp_path / "local").records())
    assert set(all_units(folder).values()) == {1}, "a unit ran twice"
    ended = {about["pid"]: about.get("status") for about in read_workers(folder)}
    assert ended.pop(killed) is None
    assert set(ended.values()) == {"complete"}
    assert "--resource tpu=1: no node of the Ray cluster has as much; start nodes" in refused
    assert not (tmp_path / "run-refused").exists()
