"""Contrast: logits of several streams, or of early layers, combined before the sampler chain."""

from vlmkit.contrast.build import ContrastConfig, build_contrast, other_inputs
from vlmkit.contrast.cfg import CfgConfig, cfg
from vlmkit.contrast.contrastive_decoding import ContrastiveDecodingConfig, contrastive_decoding
from vlmkit.contrast.dola import DolaConfig, dola
from vlmkit.contrast.external import external
from vlmkit.contrast.icd import IcdConfig, icd
from vlmkit.contrast.m3id import M3idConfig, m3id
from vlmkit.contrast.streams import StreamMarkers
from vlmkit.contrast.vcd import VcdConfig, image_share, noise_patches, vcd
from vlmkit.declare.external import External

__all__ = [
    "CfgConfig",
    "ContrastConfig",
    "ContrastiveDecodingConfig",
    "DolaConfig",
    "External",
    "IcdConfig",
    "M3idConfig",
    "StreamMarkers",
    "VcdConfig",
    "build_contrast",
    "cfg",
    "contrastive_decoding",
    "dola",
    "external",
    "icd",
    "image_share",
    "m3id",
    "noise_patches",
    "other_inputs",
    "vcd",
]
