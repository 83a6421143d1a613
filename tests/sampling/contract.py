"""The contract table: one row per stage.

A new stage gets all laws by its row here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, get_args

from vlmkit import sampling
from vlmkit.sampling import (
    AllowedTokens,
    Dry,
    DynamicTemperature,
    EpsilonCutoff,
    EtaCutoff,
    External,
    FrequencyPenalty,
    Grammar,
    Greedy,
    LogitBias,
    MinNewTokens,
    MinP,
    MirostatV1,
    MirostatV2,
    NoRepeatNgram,
    PLess,
    PresencePenalty,
    Quadratic,
    RepetitionPenalty,
    SamplerConfig,
    SuppressTokens,
    TailFree,
    Temperature,
    TopH,
    TopK,
    TopNSigma,
    TopP,
    TypicalP,
    Xtc,
)
from vlmkit.tokens.vocabulary import Vocabulary

VOCAB_SIZE = 24
TOKENS = (*(bytes([byte]) for byte in b"0123456789-abcdefghi"), b"ab", b"12", b"</s>")
VOCABULARY = Vocabulary(
    read_tokens=lambda: TOKENS,
    num_ids=VOCAB_SIZE,
    special_ids=frozenset({23}),
    eos_ids=frozenset({23}),
    encode=lambda text: [TOKENS.index(bytes([byte])) for byte in text.encode() if byte in b"abc"],
)
build_stage = partial(sampling.build_stage, vocabulary=VOCABULARY)
build_chain = partial(sampling.build_chain, vocabulary=VOCABULARY)
FADING_PENALTY = "tests.external_package.vlmkit_example_stages.fading_penalty:fading_penalty"


class Row(NamedTuple):
    """What a stage promises."""

    configs: tuple[SamplerConfig, ...]
    neutral: SamplerConfig | None = None  # leaves the logits as they are
    truncates: bool = False  # every logit is either kept as it is or set to −inf
    keeps_argmax: bool = True
    keeps_a_token: bool = True  # False: a rule that may forbid all that is left
    shift_invariant: bool = True  # a constant added to a row doesn't change its distribution
    idempotent: bool = False
    monotone: tuple[SamplerConfig, ...] = ()  # each keeps no more than the one before it


CONTRACT: dict[str, Row] = {
    "greedy": Row((Greedy(),), truncates=True, idempotent=True),
    "temperature": Row(
        (
            Temperature(temperature=0.3),
            Temperature(temperature=1.7),
            Temperature(temperature=1e-300),
        ),
        neutral=Temperature(temperature=1.0),
    ),
    "top_k": Row(
        (TopK(k=1), TopK(k=3), TopK(k=100), TopK(k=3, ties="all")),
        neutral=TopK(k=VOCAB_SIZE),
        truncates=True,
        idempotent=True,
        monotone=tuple(TopK(k=k) for k in (30, 10, 4, 2, 1)),
    ),
    # Not idempotent: the second time the masses are normalised over what the first has left.
    "top_p": Row(
        (TopP(p=0.1), TopP(p=0.83), TopP(p=0.999), TopP(p=0.83, ties="all")),
        neutral=TopP(p=1.0),
        truncates=True,
        monotone=tuple(TopP(p=p) for p in (1.0, 0.97, 0.8, 0.41, 0.01)),
    ),
    "min_p": Row(
        (MinP(p=0.02), MinP(p=0.31), MinP(p=1.0)),
        neutral=MinP(p=0.0),
        truncates=True,
        idempotent=True,
        monotone=tuple(MinP(p=p) for p in (0.0, 0.01, 0.2, 0.7, 1.0)),
    ),
    "repetition_penalty": Row(
        (
            RepetitionPenalty(penalty=1.3, context_size=4),
            RepetitionPenalty(penalty=0.8, context_size=50, excluded_ids=(2, 5)),
            RepetitionPenalty(penalty=1.3, context_size=None, excluded_ids=(2,)),
        ),
        neutral=RepetitionPenalty(penalty=1.0),
        keeps_argmax=False,
        shift_invariant=False,
    ),
    "presence_penalty": Row(
        (
            PresencePenalty(penalty=0.7),
            PresencePenalty(penalty=-0.4, context_size=3, include_prompt=True, excluded_ids=(1,)),
        ),
        neutral=PresencePenalty(penalty=0.0),
        keeps_argmax=False,
    ),
    "frequency_penalty": Row(
        (
            FrequencyPenalty(penalty=0.25),
            FrequencyPenalty(penalty=0.6, context_size=5, include_prompt=True),
        ),
        neutral=FrequencyPenalty(penalty=0.0),
        keeps_argmax=False,
    ),
    "logit_bias": Row(
        (LogitBias(bias={0: -3.0, 7: 2.5}), LogitBias(bias={3: -100.0})),
        neutral=LogitBias(bias={}),
        keeps_argmax=False,
    ),
    "dynamic_temperature": Row(
        (
            DynamicTemperature(min_temperature=0.2, max_temperature=3.0),
            DynamicTemperature(min_temperature=0.7, max_temperature=0.9, exponent=2.5),
        ),
        neutral=DynamicTemperature(min_temperature=1.0, max_temperature=1.0),
    ),
    "quadratic": Row((Quadratic(factor=0.3), Quadratic(factor=4.0))),
    "typical_p": Row(
        (TypicalP(p=0.2), TypicalP(p=0.9), TypicalP(p=0.9, ties="all")),
        neutral=TypicalP(p=1.0),
        truncates=True,
        keeps_argmax=False,
        monotone=tuple(TypicalP(p=p) for p in (1.0, 0.95, 0.5, 0.05)),
    ),
    "top_n_sigma": Row(
        (TopNSigma(n=0.5), TopNSigma(n=1.5)),
        truncates=True,
        monotone=tuple(TopNSigma(n=n) for n in (4.0, 2.0, 1.0, 0.1)),
    ),
    "epsilon_cutoff": Row(
        (EpsilonCutoff(epsilon=0.01), EpsilonCutoff(epsilon=0.3)),
        neutral=EpsilonCutoff(epsilon=0.0),
        truncates=True,
        monotone=tuple(EpsilonCutoff(epsilon=e) for e in (0.0, 0.01, 0.1, 0.9)),
    ),
    "eta_cutoff": Row(
        (EtaCutoff(epsilon=0.02), EtaCutoff(epsilon=0.4)),
        neutral=EtaCutoff(epsilon=0.0),
        truncates=True,
        monotone=tuple(EtaCutoff(epsilon=e) for e in (0.0, 0.01, 0.1, 0.9)),
    ),
    "tail_free": Row(
        (TailFree(z=0.3), TailFree(z=0.95)),
        neutral=TailFree(z=1.0),
        truncates=True,
        monotone=tuple(TailFree(z=z) for z in (1.0, 0.9, 0.5, 0.1)),
    ),
    "top_h": Row(
        (TopH(h=0.3), TopH(h=0.8)),
        neutral=TopH(h=1.0),
        truncates=True,
        monotone=tuple(TopH(h=h) for h in (1.0, 0.9, 0.5, 0.1)),
    ),
    "p_less": Row((PLess(), PLess(temperature=0.6)), truncates=True),
    "xtc": Row(
        (
            Xtc(probability=1.0, threshold=0.1),
            Xtc(probability=0.5, threshold=0.02, protected_ids=(0, 4)),
            Xtc(probability=1.0, threshold=0.1, ties="exact"),
        ),
        neutral=Xtc(probability=0.0, threshold=0.1),
        truncates=True,
        keeps_argmax=False,
    ),
    "mirostat_v1": Row((MirostatV1(tau=1.5), MirostatV1(tau=0.5, num_ranks=7)), truncates=True),
    "mirostat_v2": Row((MirostatV2(tau=1.5), MirostatV2(tau=0.5, eta=0.7)), truncates=True),
    "dry": Row(
        (
            Dry(multiplier=0.8, allowed_length=1, context_size=8),
            Dry(multiplier=2.0, base=1.2, breaker_ids=(2,), excluded_ids=(5,)),
            Dry(multiplier=0.8, allowed_length=1, context_size=None, excluded_ids=(5,)),
        ),
        neutral=Dry(multiplier=0.0),
        keeps_argmax=False,
    ),
    "no_repeat_ngram": Row(
        (
            NoRepeatNgram(n=2),
            NoRepeatNgram(n=3, context_size=6),
            NoRepeatNgram(n=2, context_size=None, excluded_ids=(5,)),
        ),
        truncates=True,
        keeps_argmax=False,
        keeps_a_token=False,
    ),
    "suppress_tokens": Row(
        (SuppressTokens(token_ids=(0, 3)),),
        neutral=SuppressTokens(token_ids=()),
        truncates=True,
        keeps_argmax=False,
        keeps_a_token=False,
        idempotent=True,
    ),
    "allowed_tokens": Row(
        (AllowedTokens(token_ids=(1, 9, 11)),),
        neutral=AllowedTokens(token_ids=tuple(range(VOCAB_SIZE))),
        truncates=True,
        keeps_argmax=False,
        keeps_a_token=False,
        idempotent=True,
    ),
    "min_new_tokens": Row(
        (MinNewTokens(num_tokens=2, token_ids=(1, 12)),),
        neutral=MinNewTokens(num_tokens=0, token_ids=(1,)),
        truncates=True,
        keeps_argmax=False,
        keeps_a_token=False,
    ),
    "grammar": Row(
        (Grammar(regex="(ab)+|12?c|9b"), Grammar(json_schema={"type": "integer"}, thinking=None)),
        neutral=Grammar(regex="(?s:.*)"),
        truncates=True,
        keeps_argmax=False,
        keeps_a_token=False,
        idempotent=True,
    ),
    # What a third party's stage promises is its own affair: this is the example package's.
    "external": Row(
        (
            External(factory=FADING_PENALTY, config={"strength": 0.5}),
            External(factory=FADING_PENALTY, config={"strength": 2.0, "decay": 0.875}),
        ),
        neutral=External(factory=FADING_PENALTY, config={"strength": 0.0}),
        keeps_argmax=False,
    ),
}
KINDS: tuple[str, ...] = tuple(
    member.model_fields["kind"].default for member in get_args(get_args(SamplerConfig)[0])
)


def cases(wanted: Callable[[Row], bool] = lambda row: True) -> list[Any]:
    """Return every config of every row that fits."""
    return [config for row in CONTRACT.values() if wanted(row) for config in row.configs]


def case_id(config: Any) -> str:
    """Name a config in a test's id."""
    values = [f"{value}" for key, value in config.model_dump().items() if key != "kind"]
    return "-".join([config.kind, *values]).replace(" ", "")
