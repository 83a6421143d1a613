"""The preprocess stage: request → :class:`vlmkit.interface.Inputs`."""

from vlmkit.preprocess.config import PreprocessConfig as PreprocessConfig
from vlmkit.preprocess.images import ImageSource as ImageSource
from vlmkit.preprocess.images import load_image as load_image
from vlmkit.preprocess.images import resize_image as resize_image
from vlmkit.preprocess.request import prepare as prepare
