"""The vision tower of the lean Qwen2-VL, for still square images of one size."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


class Size(NamedTuple):
    """Widths and depths; heads are 32 wide in both towers."""

    vocabulary: int = 640
    hidden: int = 128
    layers: int = 4
    kv_heads: int = 2
    mlp: int = 384
    vision_width: int = 96
    vision_layers: int = 3
    vision_mlp_ratio: int = 3
    patch: int = 14
    merge: int = 2
    grid: int = 8
    theta: float = 1e4
    mrope_section: tuple[int, int, int] = (4, 6, 6)
    head: int = 32

    @property
    def image_tokens(self) -> int:
        return (self.grid // self.merge) ** 2


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def vision_rotary(size: Size) -> tuple[Tensor, Tensor]:
    """cos and sin per patch in merge order, float32[grid², head] each."""
    side, merge = size.grid // size.merge, size.merge
    rows = torch.arange(size.grid).view(-1, 1).expand(size.grid, size.grid)
    ids = (
        torch.stack((rows, rows.T))
        .reshape(2, side, merge, side, merge)
        .transpose(2, 3)
        .reshape(2, -1)
    )
    half = size.head // 2
    inverse = 1e4 ** -(torch.arange(0, half, 2).float() / half)
    angles = (ids[..., None] * inverse).permute(1, 0, 2).reshape(size.grid**2, half)
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


class PatchEmbed(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        kernel = (2, size.patch, size.patch)
        self.proj = nn.Conv3d(3, size.vision_width, kernel, stride=kernel, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Both frames of a still image are equal, so the two halves of the kernel fold into one."""
        return patches @ self.proj.weight.sum(2).flatten(1).T


class VisionAttention(nn.Module):
    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.heads = width // head
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return self.proj(out.transpose(1, 2).reshape(batch, length, width))


class VisionMlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class VisionBlock(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.vision_width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.attn = VisionAttention(width, size.head)
        self.mlp = VisionMlp(width, width * size.vision_mlp_ratio)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        wide = size.vision_width * size.merge**2
        self.ln_q = nn.LayerNorm(size.vision_width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, size.hidden))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.ln_q(x).view(x.shape[0], -1, self.mlp[0].in_features))


class Vision(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.patch_embed = PatchEmbed(size)
        self.blocks = nn.ModuleList(VisionBlock(size) for _ in range(size.vision_layers))
        self.merger = Merger(size)
        cos, sin = vision_rotary(size)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.register_buffer("mean", 255 * torch.tensor(IMAGE_MEAN), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(IMAGE_STD), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8[B, height, width, 3] to float32[B, image_tokens, hidden]."""
        size, batch = self.size, images.shape[0]
        side, merge, patch = size.grid // size.merge, size.merge, size.patch
        pixels = ((images - self.mean) / self.std).view(
            batch, side, merge, patch, side, merge, patch, 3
        )
        x = self.patch_embed(
            pixels.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(batch, size.grid**2, -1)
        )
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.merger(x)
