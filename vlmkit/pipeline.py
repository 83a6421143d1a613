"""Every stage from a request to its text, as one frozen config. The engine runs what it says."""

from __future__ import annotations

from pydantic import Field

from vlmkit.cache import CacheConfig, DenseConfig
from vlmkit.configbase import Int, StageConfig
from vlmkit.prefill import PrefillConfig
from vlmkit.preprocess import PreprocessConfig
from vlmkit.sampling import Greedy, SamplerConfig
from vlmkit.stopping import EosConfig, MaxTokensConfig, StoppingConfig

DEFAULT_MAX_TOKENS = 256


class PipelineConfig(StageConfig):
    """How a request becomes text. The stages run in the order of the fields.

    Example:
        >>> PipelineConfig(seed=7).sampling
        (Greedy(kind='greedy'),)
    """

    preprocess: PreprocessConfig = Field(
        default=PreprocessConfig(), description="how images are fetched and sized"
    )
    prefill: PrefillConfig = Field(
        default=PrefillConfig(), description="how the prompt goes through the model"
    )
    cache: CacheConfig = Field(default=DenseConfig(), description="how keys and values are kept")
    sampling: tuple[SamplerConfig, ...] = Field(
        default=(Greedy(),), description="stages that turn logits into a token, in this order"
    )
    stopping: tuple[StoppingConfig, ...] = Field(
        default=(MaxTokensConfig(max_tokens=DEFAULT_MAX_TOKENS), EosConfig()),
        description="when a row ends, and what it is forced to say; the first to match ends it",
    )
    seed: Int = Field(
        default=0, ge=0, lt=2**64, description="with the sample number and position: every draw"
    )
    skip_special_tokens: bool = Field(
        default=False, description="leave special tokens out of the text"
    )
