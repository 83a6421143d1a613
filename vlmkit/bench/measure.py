"""Every policy takes turns with the dense cache: append and attend, decode steps, prefills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
from pydantic import TypeAdapter

from vlmkit.backend.forms import Forms
from vlmkit.backend.policy import choose_backend
from vlmkit.bench.config import BASELINE, KvBenchConfig, LayerConfig
from vlmkit.bench.rows import BenchRow
from vlmkit.bench.running import Running, Turn, layers_running, model_running, prefill_turn
from vlmkit.bench.setup import describe_setup
from vlmkit.cache import CacheConfig, row_held_bytes
from vlmkit.contracts.interface import KVSpec, LayerSpec, Model, PromptShape
from vlmkit.errors import VlmkitError
from vlmkit.loading import load_model, resolve_checkpoint

_CACHE: TypeAdapter[CacheConfig] = TypeAdapter(CacheConfig)
_WARM_UPS = 1


class Case(NamedTuple):
    """What is timed once."""

    test: str
    policy: str
    config: CacheConfig
    context: int
    batch: int


def run_kv_bench(
    config: KvBenchConfig,
    *,
    tell: Callable[[str], None] = lambda line: None,
    command: Sequence[str] = (),
) -> Iterator[BenchRow]:
    """Measure case by case.

    Each policy and the dense cache take turns, so that both see the same machine: A B A B.

    Args:
        config: what to measure.
        tell: is told of each case that is left out, and why.
        command: that asked for it; kept in the rows.

    Yields:
        A row as soon as it is measured.

    Raises:
        VlmkitError: the model cannot be loaded, or a policy cannot work for it.

    Example:
        >>> config = KvBenchConfig(
        ...     contexts=(64,), batches=(1,), tests=("decode",), repetitions=2,
        ...     policies={"8 bits": {"kind": "affine", "group_size": 32}},
        ... )
        >>> [row.policy for row in run_kv_bench(config)]
        ['dense', '8 bits']
    """
    model = load_model(resolve_checkpoint(config.model), dtype=config.dtype)
    _check(config, model)
    setup = describe_setup(config, model, command)
    for case in _cases(config):
        bench = _Bench(config, model, case)
        reason = bench.refusal()
        if reason is not None:
            tell(f"{case.test}, {case.policy}, {case.context:,} x {case.batch}: {reason}")
            continue
        yield bench.row(setup)


def layer_forms() -> Forms:
    """How a layer of a large model is computed here, whatever the model that is loaded."""
    return choose_backend().forms


def layer_spec(layer: LayerConfig) -> KVSpec:
    """Return what the layer that is timed stores."""
    dim = layer.head_dim
    return KVSpec(layer.num_kv_heads, dim, dim, num_heads=layer.num_heads)


def _check(config: KvBenchConfig, model: Model) -> None:
    """Refuse a policy that cannot work for what is timed, before anything is."""
    specs: dict[str, Sequence[LayerSpec]] = {
        f"the model {config.model!r}": model.layer_specs,
        "the layer that is timed": [layer_spec(config.layer)],
    }
    if "layer" not in config.tests:
        specs.popitem()
    elif len(config.tests) == 1:
        del specs[f"the model {config.model!r}"]
    for name, policy in config.policies.items():
        for what, layers in specs.items():
            try:
                row_held_bytes(policy, layers, model.dtype)
            except VlmkitError as error:
                raise VlmkitError(
                    f"policies.{name}: {error}, in {what}", path=("policies", name)
                ) from error


def _cases(config: KvBenchConfig) -> Iterator[Case]:
    policies = {BASELINE: config.baseline, **config.policies}
    for test in config.tests:
        for context in config.contexts:
            for batch in config.batches:
                for name, policy in policies.items():
                    yield Case(test, name, policy, context, batch)


class _Bench(NamedTuple):
    config: KvBenchConfig
    model: Model
    case: Case

    def refusal(self) -> str | None:
        """Why a case is left out; None: it is not."""
        case, config = self.case, self.config
        tokens = case.context * case.batch
        if case.test == "prefill" and tokens > config.longest_prefill:
            return f"left out: longest_prefill is {config.longest_prefill:,} tokens of all rows"
        needed = sum(map(self._most, (config.baseline, case.config)))
        if needed > config.most_bytes:
            return f"left out: {needed:,} bytes are more than most_bytes={config.most_bytes:,}"
        return None

    def row(self, setup: dict[str, Any]) -> BenchRow:
        """Measure the case."""
        case, baseline = self.case, self.config.baseline
        own_bytes, own_peak = self._alone(case.config)
        _, base_peak = self._alone(baseline)
        base, own = self._turn(baseline), self._turn(case.config)
        seconds, base_seconds = [], []
        for repetition in range(_WARM_UPS + self.config.repetitions):
            base_s, own_s = base() / self._layers, own() / self._layers
            if repetition >= _WARM_UPS:
                base_seconds.append(base_s)
                seconds.append(own_s)
        return BenchRow(
            test=case.test,
            policy=case.policy,
            config=_CACHE.dump_python(case.config, mode="json"),
            context=case.context,
            batch=case.batch,
            seconds=tuple(seconds),
            base_seconds=tuple(base_seconds),
            cache_bytes=own_bytes,
            held_bytes=self._held(case.config),
            base_held_bytes=self._held(baseline),
            peak_bytes=own_peak,
            base_peak_bytes=base_peak,
            setup=setup,
        )

    def _alone(self, policy: CacheConfig) -> tuple[int, int]:
        """Bytes of a cache, and those that MLX has at most while it alone takes its turns."""
        mx.clear_cache()
        before = mx.get_active_memory()
        if self.case.test == "prefill":
            turn = self._turn(policy)
            mx.reset_peak_memory()
            turn()
            return self._held(policy), mx.get_peak_memory() - before
        running = self._running(policy)
        mx.reset_peak_memory()
        running.turn()
        return running.num_bytes, mx.get_peak_memory() - before

    def _turn(self, policy: CacheConfig) -> Turn:
        if self.case.test != "prefill":
            return self._running(policy).turn
        case = self.case
        return prefill_turn(self.model, policy, batch=case.batch, context=case.context)

    def _running(self, policy: CacheConfig) -> Running:
        case, layer = self.case, self.config.layer
        if case.test == "decode":
            return model_running(self.model, policy, batch=case.batch, context=case.context)
        return layers_running(
            layer_forms(),
            self.model.dtype,
            policy,
            self._spec,
            layer.num_layers,
            layer.num_heads,
            batch=case.batch,
            context=case.context,
        )

    @property
    def _spec(self) -> KVSpec:
        return layer_spec(self.config.layer)

    @property
    def _layers(self) -> int:
        """Layers that a sample is divided by."""
        return self.config.layer.num_layers if self.case.test == "layer" else 1

    def _most(self, policy: CacheConfig) -> int:
        """Bytes of all rows at most: some caches hold a prompt as computed until its end."""
        return max(self._held(policy), self._held(policy, missing=1))

    def _held(self, policy: CacheConfig, missing: int = 0) -> int:
        """Bytes of the tokens that are there, of all rows."""
        specs: Sequence[LayerSpec] = self.model.layer_specs
        if self.case.test == "layer":
            specs = [self._spec] * self.config.layer.num_layers
        held = row_held_bytes(policy, specs, self.model.dtype)(
            PromptShape(self.case.context), self.case.context - missing
        )
        return held * self.case.batch
