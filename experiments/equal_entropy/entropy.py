"""The mean entropy that a sampler chain draws with, and the temperature that gives it a value.

    python -m experiments.equal_entropy.entropy                 # of the study as it is
    python -m experiments.equal_entropy.entropy --target 0.15   # temperatures for this entropy

Entropy is that of the distribution a token is drawn from, after the whole chain, in nats, averaged
over all tokens of responses that the chain itself generated to the study's questions. To choose a
temperature, responses are drawn, the temperature is moved towards the one at which the chain has
the wanted mean entropy over the logits met on the way, and responses are drawn again under it.
Nobody looks at whether they are right.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit import PipelineConfig, Request, apply_chat_template, load, start, stream_branch
from vlmkit.experiment.data import Samples, load_samples
from vlmkit.experiment.files import load_experiment
from vlmkit.sampling import Temperature, build_chain

STUDY = Path(__file__).parent / "equal_entropy.yaml"
TOLERANCE = 0.07  # of the target
ROUNDS = 6
HOTTEST = 64.0


def mean_entropy(pipeline: PipelineConfig, logits: mx.array) -> float:
    """The mean entropy in nats of a stateless chain over rows of logits ``[N, V]``."""
    chain = build_chain(pipeline.sampling)
    after = chain.apply(chain.init([[]] * len(logits), logits.shape[-1]), logits, None)
    values = np.array(after, np.float64)
    values -= values.max(axis=-1, keepdims=True)
    weights = np.exp(values)
    total = weights.sum(axis=-1, keepdims=True)
    logprobs = np.where(weights > 0, values - np.log(total), 0.0)
    return float(-(weights / total * logprobs).sum(axis=-1).mean())


def temperature_of(pipeline: PipelineConfig) -> float:
    """The temperature of the pipeline's one temperature stage."""
    (found,) = (stage for stage in pipeline.sampling if isinstance(stage, Temperature))
    return found.temperature


def with_temperature(pipeline: PipelineConfig, value: float) -> PipelineConfig:
    """The pipeline with another temperature in its one temperature stage."""
    stages = [
        Temperature(temperature=value) if isinstance(stage, Temperature) else stage
        for stage in pipeline.sampling
    ]
    return PipelineConfig.model_validate({**dict(pipeline), "sampling": stages})


def draw(
    pipelines: Sequence[PipelineConfig], seeds: Sequence[int], samples: Samples
) -> list[mx.array]:
    """The model's logits ``[N, V]`` at every token that each chain drew."""
    model, processor = load("shapes")
    found: list[list[NDArray[np.float32]]] = [[] for _ in pipelines]
    for sample in samples:
        text = apply_chat_template(
            processor, model.config, sample.question, num_images=1, enable_thinking=True
        )
        prompt = start(model, processor, Request(text, sample.images))
        for arm, _, result in stream_branch(prompt, pipelines, seeds):
            if result.token is not None:
                found[arm].append(np.array(result.logprobs, np.float32))
    return [mx.array(np.stack(rows)) for rows in found]


def solve(pipeline: PipelineConfig, logits: mx.array, target: float) -> float:
    """The temperature at which the chain has the target's mean entropy over these logits.

    A chain that cannot have it, however hot, comes out at ``HOTTEST``.
    """
    low, high = 0.05, HOTTEST
    if mean_entropy(with_temperature(pipeline, high), logits) < target:
        return high
    for _ in range(24):
        middle = (low * high) ** 0.5
        if mean_entropy(with_temperature(pipeline, middle), logits) < target:
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def choose(
    arms: Mapping[str, PipelineConfig], seeds: Sequence[int], samples: Samples, target: float
) -> dict[str, PipelineConfig]:
    """Give each chain the temperature at which it has the target's mean entropy.

    Chains that are near enough are left alone; the others are drawn from again, a few times.
    """
    chosen, left = dict(arms), list(arms)
    for number in range(1, ROUNDS + 1):
        met = draw([chosen[name] for name in left], seeds, samples)
        print(f"round {number}")
        for name, logits in zip(list(left), met, strict=True):
            entropy, now = mean_entropy(chosen[name], logits), temperature_of(chosen[name])
            print(f"  {name:<20}temperature {now:<8g}{entropy:.3f} nats", flush=True)
            if abs(entropy - target) <= TOLERANCE * target:
                left.remove(name)
                continue
            # Half the way: hotter draws also lead to places where the model is less sure.
            value = (now * solve(chosen[name], logits, target)) ** 0.5
            chosen[name] = with_temperature(chosen[name], round(value, 3))
        if not left:
            return chosen
    print(f"not reached: {', '.join(left)}")
    return chosen


def main() -> None:
    """Measure the study's chains, or choose their temperatures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", type=float, help="nats; choose temperatures for it")
    target = parser.parse_args().target
    study = load_experiment(STUDY)
    samples = load_samples(study.config.dataset, study.folder)
    arms = {arm.name: arm.config.pipeline for arm in study.arms}
    if target is not None:
        for name, pipeline in choose(arms, study.seeds, samples, target).items():
            print(f"{name:<22}temperature {temperature_of(pipeline):g}")
        return
    for name, logits in zip(arms, draw(list(arms.values()), study.seeds, samples), strict=True):
        print(f"{name:<22}{mean_entropy(arms[name], logits):.3f} nats over {len(logits):,} tokens")


if __name__ == "__main__":
    main()
