"""What is chosen, by whom, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import vlmkit
from vlmkit.backend import policy
from vlmkit.backend.choices import UNCHOSEN, Choices
from vlmkit.backend.config import BackendConfig, as_choices
from vlmkit.backend.device import current_device, devices
from vlmkit.backend.environment import VARIABLES, read_wishes
from vlmkit.backend.policy import Backend, choose_backend, choose_dtype
from vlmkit.config.run import load_run
from vlmkit.errors import VlmkitError

ON_CPU = current_device() == "cpu"


@pytest.fixture(autouse=True)
def _same_device() -> Iterator[None]:
    before = mx.default_device()
    yield
    mx.set_default_device(before)


def chosen(choices: Choices = UNCHOSEN, dtype: str | None = None, **environ: str) -> Backend:
    backend = choose_backend(choices, dtype=dtype, environ=environ, weight_bytes=1)
    return choose_dtype(backend, "bfloat16", weight_bytes=1)


def test_the_config_has_a_field_and_a_variable_for_each_choice() -> None:
    assert set(BackendConfig.model_fields) == set(Choices._fields)
    assert set(VARIABLES.values()) == {*Choices._fields, "dtype"}
    assert as_choices(None) == BackendConfig().choices == UNCHOSEN
    assert as_choices({"weights": "half"}) == Choices(weights="half")


def test_this_device() -> None:
    backend = chosen()
    assert backend.device == current_device() == devices()[0]
    assert backend.dtype == ("float32" if ON_CPU else "bfloat16")
    assert backend.attention == ("matmul" if ON_CPU else "fused")
    assert (backend.activations == "polynomial") is (ON_CPU and backend.compiled)
    assert (backend.blas is None) is not ON_CPU
    assert set(backend.reasons) >= {"device", "dtype", "attention", "activations", "compile"}


def test_a_gpu_gets_its_kernels_and_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    wired: list[int] = []
    monkeypatch.setattr(mx, "set_wired_limit", wired.append)
    for device in ("metal", "cuda"):
        monkeypatch.setattr(policy, "current_device", lambda name=device: name)
        monkeypatch.setattr(policy, "device_facts", lambda: {policy._WORKING_SET: 1000})
        backend = chosen(Choices(wired=0.5) if device == "metal" else UNCHOSEN)
        assert (backend.attention, backend.activations) == ("fused", "native")
        assert (backend.dtype, backend.blas, backend.compiled) == ("bfloat16", None, True)
        assert backend.forms.fused_delta is (device == "metal")
        assert backend.wired_bytes == (500 if device == "metal" else None)
        with pytest.raises(VlmkitError, match=r"^backend\.threads is a choice of the device cpu"):
            chosen(Choices(threads=1))
    assert wired == [500, 1000][:1]
    monkeypatch.setattr(policy, "device_facts", dict)  # a Mac whose system is too old for it
    monkeypatch.setattr(policy, "current_device", lambda: "metal")
    assert chosen().wired_bytes is None
    with pytest.raises(VlmkitError, match="blas is a choice of the device cpu, and metal computes"):
        chosen(Choices(blas="mlx"))


def test_a_config_goes_before_the_environment_and_that_before_the_machine() -> None:
    environ = {"VLMKIT_BACKEND": "cpu", "VLMKIT_ATTENTION": "fused", "VLMKIT_DTYPE": "float16"}
    backend = chosen(Choices(device="cpu", attention="matmul"), **environ)
    assert (backend.attention, backend.reasons["attention"]) == (
        "matmul",
        "asked for in the config",
    )
    assert (backend.dtype, backend.reasons["dtype"]) == ("float16", "VLMKIT_DTYPE says so")
    assert chosen(dtype="float32", **environ).dtype == "float32"
    backend = chosen(**environ, VLMKIT_ACTIVATIONS="auto", VLMKIT_COMPILE="")
    assert (backend.attention, backend.activations) == ("fused", "native")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("VLMKIT_BACKEND", "gpu", "'gpu' is not one of cpu, metal, cuda"),
        ("VLMKIT_DTYPE", "float8", "'float8' is not one of float32, float16, bfloat16"),
        ("VLMKIT_WEIGHTS", "hlaf", "'hlaf' is not one of full, half, packed; did you mean 'half'"),
        ("VLMKIT_ATTENTION", "flash", "is not one of matmul, fused"),
        ("VLMKIT_ACTIVATIONS", "fast", "is not one of polynomial, native"),
        ("VLMKIT_PRODUCTS", "int8", "is not one of native, bfloat16"),
        ("VLMKIT_COMPILE", "yes", "'yes' is not one of 0, 1"),
        ("VLMKIT_THREADS", "0", "'0' is not a whole number, 1 or more"),
        ("VLMKIT_THREADS", "two", "'two' is not a whole number, 1 or more"),
        ("VLMKIT_WIRED", "2", "'2' is not a number from 0 to 1"),
        ("VLMKIT_WIRED", "nan", "'nan' is not a number from 0 to 1"),
    ],
)
def test_a_variable_that_is_wrong_is_named(variable: str, value: str, said: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        read_wishes(UNCHOSEN, None, {variable: value})
    assert str(caught.value).startswith(f"{variable}: ")
    assert said in str(caught.value)


def test_what_is_not_on_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = next(name for name in ("metal", "cuda") if name not in devices())
    with pytest.raises(VlmkitError, match=f"device: {missing} is not on this machine; MLX has"):
        chosen(Choices(device=missing))  # type: ignore[arg-type]
    with pytest.raises(VlmkitError, match="dtype 'int4' is not one of float32"):
        chosen(dtype="int4")
    cpu = Choices(device="cpu")
    with pytest.raises(VlmkitError, match="is no file; use auto, mlx or the path of a library"):
        chosen(cpu._replace(blas="/nowhere/lib.so"))


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Choices(device="cpu")
    monkeypatch.setenv("PATH", "/nowhere")
    backend = choose_backend(cpu, environ={})
    assert (backend.compiled, backend.activations) == (False, "native")
    assert "there is no g++" in backend.reasons["compile"]
    with pytest.raises(VlmkitError, match=r"backend\.compile: true needs g\+\+"):
        choose_backend(cpu._replace(compile=True), environ={})


def test_a_small_model_is_not_worth_compiling() -> None:
    cpu = Choices(device="cpu")
    small = choose_backend(cpu, weight_bytes=10**6, environ={})
    assert not small.compiled
    assert "too small" in small.reasons["compile"]


@pytest.mark.skipif(not ON_CPU, reason="a library of the CPU's")
def test_threads_are_the_librarys() -> None:
    if choose_backend(environ={}).blas.source == "mlx":  # type: ignore[union-attr]
        with pytest.raises(VlmkitError, match=r"backend\.threads: .* cannot be told"):
            chosen(Choices(threads=1))
        return
    usual = chosen().threads
    assert chosen(Choices(threads=1)).threads == 1
    assert chosen(Choices(threads=usual)).threads == usual


def test_it_travels_with_the_model_and_is_recorded() -> None:
    config: dict[str, Any] = {"device": "cpu", "attention": "fused", "activations": "native"}
    model, processor = vlmkit.load("shapes", backend=config)
    other, _ = vlmkit.load("shapes", backend={"device": "cpu"})
    assert (model.backend.attention, other.backend.attention) == ("fused", "matmul")
    result = vlmkit.generate(model, processor, "How many?", max_tokens=2)
    assert result.effective is not None
    recorded = result.effective["backend"]
    assert recorded == model.backend.describe()
    assert recorded.items() >= {**config, "dtype": "float32", "weights": "full"}.items()
    again = vlmkit.generate(other, processor, "How many?", max_tokens=2)
    assert again.text == result.text
    with pytest.raises(VlmkitError, match="BackendConfig: atention: unknown key; did you mean"):
        vlmkit.load("shapes", backend={"atention": "fused"})
    with pytest.raises(VlmkitError, match="backend is 'cpu'; give a mapping"):
        vlmkit.load("shapes", backend="cpu")  # type: ignore[arg-type]


def test_a_mistake_in_a_file_is_found_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("prompt: hi\nbackend:\n  weights: hlaf\n")
    with pytest.raises(VlmkitError, match=r"run\.yaml:3: backend\.weights: must be 'full', 'half'"):
        load_run(path)
    from vlmkit.cli.run import start_run

    path.write_text("prompt: hi\nbackend:\n  device: cpu\n  weights: packed\n")
    run = load_run(path)
    with pytest.raises(VlmkitError, match=r"run\.yaml:4: backend\.weights: packed is not to be"):
        start_run(run, "hi")
