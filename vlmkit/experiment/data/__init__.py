"""Data sets: what is asked, what is seen, and what would be right."""

from vlmkit.experiment.data.base import Samples as Samples
from vlmkit.experiment.data.config import DatasetConfig as DatasetConfig
from vlmkit.experiment.data.config import data_hash as data_hash
from vlmkit.experiment.data.config import load_samples as load_samples
from vlmkit.experiment.data.folder import ImagesConfig as ImagesConfig
from vlmkit.experiment.data.hub import HubConfig as HubConfig
from vlmkit.experiment.data.jsonl import JsonlConfig as JsonlConfig
from vlmkit.experiment.data.parquet import ParquetConfig as ParquetConfig
from vlmkit.experiment.data.shapes import ShapesConfig as ShapesConfig
from vlmkit.experiment.data.tsv import TsvConfig as TsvConfig
