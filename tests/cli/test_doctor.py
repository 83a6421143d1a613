"""``vlmkit doctor``."""

from __future__ import annotations

import json

import pytest

from tests.cli.reply import Command
from vlmkit.backend import diagnosis
from vlmkit.backend.device import current_device
from vlmkit.backend.measure import Speeds


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "measure_speeds", lambda *_, **__: Speeds(210.4, 40.25))


def test_text(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMKIT_ATTENTION", "fused")
    monkeypatch.setenv("PATH", "/nowhere")
    reply = command("doctor")
    assert (reply.code, reply.stderr) == (0, "")
    assert "products     210 GFLOP/s" in reply.stdout
    assert "memory       40.2 GB/s" in reply.stdout
    assert "attention    fused  (VLMKIT_ATTENTION says so)" in reply.stdout
    assert "compiler     none" in reply.stdout
    if current_device() == "cpu":
        assert "compile      no  (there is no g++" in reply.stdout
        assert "- install g++: compiled activations" in reply.stdout
        assert "- attention: matmul is about twice as fast" in reply.stdout


def test_json_for_a_model(command: Command) -> None:
    reply = command("doctor", "--model", "shapes", "--json")
    assert (reply.code, reply.stderr) == (0, "")
    found = json.loads(reply.stdout)
    assert set(found) == {"backend", "reasons", "machine", "speeds", "advice"}
    assert found["speeds"] == {"gflops": 210.4, "bandwidth_gb_s": 40.25}
    assert found["backend"]["weights"] == "full"
    assert found["backend"]["device"] == found["machine"]["devices"][0] == current_device()
    assert found["reasons"].keys() >= {"device", "dtype", "weights"}


@pytest.mark.parametrize(
    ("variable", "value", "words", "said"),
    [
        ("VLMKIT_BACKEND", "tpu", (), "VLMKIT_BACKEND: 'tpu' is not one of cpu, metal, cuda"),
        ("VLMKIT_WEIGHTS", "packed", ("--model", "shapes"), "backend.weights: packed is not to be"),
        ("VLMKIT_THREADS", "-1", (), "VLMKIT_THREADS: '-1' is not a whole number"),
        ("VLMKIT_DTYPE", "", ("--dtype", "float8"), "invalid choice: 'float8'"),
    ],
)
def test_mistakes(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    words: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setenv(variable, value)
    reply = command("doctor", *words)
    assert (reply.code, reply.stdout) == (2, "")
    assert reply.stderr.count("\n") == 1
    assert reply.stderr.startswith("vlmkit: error: ")
    assert said in reply.stderr
