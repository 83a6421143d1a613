"""Scorers: what a response is worth, by the rules of the public benchmarks."""

from vlmkit.experiment.records import Scored as Scored
from vlmkit.experiment.samples import Sample as Sample
from vlmkit.experiment.scoring.anls import AnlsConfig as AnlsConfig
from vlmkit.experiment.scoring.base import Scorer as Scorer
from vlmkit.experiment.scoring.base import answer_of as answer_of
from vlmkit.experiment.scoring.base import check_samples as check_samples
from vlmkit.experiment.scoring.base import has_answer as has_answer
from vlmkit.experiment.scoring.base import mean as mean
from vlmkit.experiment.scoring.base import opens_thinking as opens_thinking
from vlmkit.experiment.scoring.chair import ChairConfig as ChairConfig
from vlmkit.experiment.scoring.chartqa import ChartQAConfig as ChartQAConfig
from vlmkit.experiment.scoring.config import ScorerConfig as ScorerConfig
from vlmkit.experiment.scoring.config import make_scorer as make_scorer
from vlmkit.experiment.scoring.external import ExternalScorerConfig as ExternalScorerConfig
from vlmkit.experiment.scoring.mmmu import MmmuConfig as MmmuConfig
from vlmkit.experiment.scoring.multiple_choice import MultipleChoiceConfig as MultipleChoiceConfig
from vlmkit.experiment.scoring.ocrbench import OCRBenchConfig as OCRBenchConfig
from vlmkit.experiment.scoring.pope import PopeConfig as PopeConfig
from vlmkit.experiment.scoring.text import ContainsConfig as ContainsConfig
from vlmkit.experiment.scoring.text import ExactConfig as ExactConfig
from vlmkit.experiment.scoring.text import NormalisedExactConfig as NormalisedExactConfig
from vlmkit.experiment.scoring.vqa import VqaConfig as VqaConfig
