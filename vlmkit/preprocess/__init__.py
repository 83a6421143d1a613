"""The preprocess stage: request → :class:`vlmkit.contracts.inputs.Inputs`."""

from vlmkit.preprocess.arguments import as_sources as as_sources
from vlmkit.preprocess.arguments import check_prompt as check_prompt
from vlmkit.preprocess.config import PreprocessConfig as PreprocessConfig
from vlmkit.preprocess.images import ImageSource as ImageSource
from vlmkit.preprocess.images import load_image as load_image
from vlmkit.preprocess.images import resize_image as resize_image
from vlmkit.preprocess.pixels import PixelCache as PixelCache
from vlmkit.preprocess.request import check_media as check_media
from vlmkit.preprocess.request import prepare as prepare
