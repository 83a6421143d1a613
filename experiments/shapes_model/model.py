"""A lean Qwen2-VL in torch for one square image per sequence, with the hub's weight names.

It computes what transformers' `Qwen2VLForConditionalGeneration` computes (arXiv:2409.12191), with
the positions of the fixed layout known beforehand: `PREFIX` tokens, one image, then text.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.shapes_model.vision import Size, Vision, rotate

PREFIX = 4
KeysValues = tuple[Tensor, Tensor]
Cache = list[KeysValues]


def text_rotary(size: Size, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin of the multimodal rotary embedding, float32[length, head] each."""
    side = size.grid // size.merge
    cells = torch.arange(size.image_tokens)
    image = PREFIX + torch.stack((torch.zeros_like(cells), cells // side, cells % side))
    rest = length - PREFIX - size.image_tokens
    after = PREFIX + side + torch.arange(rest)
    positions = torch.cat((torch.arange(PREFIX).expand(3, -1), image, after.expand(3, -1)), 1)
    inverse = size.theta ** -(torch.arange(0, size.head, 2).float() / size.head)
    parts = (positions[..., None] * inverse).split(list(size.mrope_section), -1)
    angles = torch.cat([part[axis] for axis, part in enumerate(parts)], -1)
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


class Attention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.head = size.head
        inner = size.kv_heads * size.head
        self.q_proj = nn.Linear(size.hidden, size.hidden)
        self.k_proj = nn.Linear(size.hidden, inner)
        self.v_proj = nn.Linear(size.hidden, inner)
        self.o_proj = nn.Linear(size.hidden, size.hidden, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, past: KeysValues | None, mask: Tensor | None
    ) -> tuple[Tensor, KeysValues]:
        batch, length, hidden = x.shape
        parts = (self.q_proj, self.k_proj, self.v_proj)
        joint = F.linear(
            x, torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])
        )
        joint = joint.view(batch, length, -1, self.head).transpose(1, 2)
        heads = hidden // self.head
        groups = (joint.shape[1] - heads) // 2
        q, k, v = joint.split((heads, groups, groups), 1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        wide_k, wide_v = (t.repeat_interleave(heads // groups, 1) for t in (k, v))
        out = F.scaled_dot_product_attention(
            q, wide_k, wide_v, mask, is_causal=past is None and mask is None
        )
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, hidden)), (k, v)


class Mlp(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size.hidden, size.mlp, bias=False)
        self.up_proj = nn.Linear(size.hidden, size.mlp, bias=False)
        self.down_proj = nn.Linear(size.mlp, size.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = F.linear(x, torch.cat((self.gate_proj.weight, self.up_proj.weight))).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(size.hidden, eps=1e-6)
        self.post_attention_layernorm = nn.RMSNorm(size.hidden, eps=1e-6)
        self.self_attn = Attention(size)
        self.mlp = Mlp(size)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        past: KeysValues | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues]:
        out, kept = self.self_attn(self.input_layernorm(x), cos, sin, past, mask)
        x = x + out
        return x + self.mlp(self.post_attention_layernorm(x)), kept


class Text(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(size.vocabulary, size.hidden)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.hidden, eps=1e-6)


DEFAULT_SIZE = Size()


class ShapesModel(nn.Module):
    """The whole model; parameters are named as in the hub's Qwen2-VL files."""

    def __init__(self, size: Size = DEFAULT_SIZE, length: int = 256) -> None:
        super().__init__()
        self.size = size
        self.visual = Vision(size)
        self.model = Text(size)
        cos, sin = text_rotary(size, length)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def hidden(
        self, tokens: Tensor, images: Tensor | None, past: Cache | None = None
    ) -> tuple[Tensor, Cache]:
        """Final hidden states float32[B, T, hidden] of int64[B, T] tokens, keys and values."""
        x = self.model.embed_tokens(tokens)
        start = past[0][0].shape[2] if past else 0
        if images is not None:
            x = self.with_image(x, self.visual(images))
        cos, sin = (t[start : start + tokens.shape[1]] for t in (self.cos, self.sin))
        cache: Cache = []
        for index, layer in enumerate(self.model.layers):
            x, kept = layer(x, cos, sin, past[index] if past else None)
            cache.append(kept)
        return self.model.norm(x), cache

    def packed(
        self, tokens: Tensor, images: Tensor, blocks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Several questions about one image at once, each as if it were alone with the image.

        Args:
            blocks: int64[B, T], 0 for the prefix with the image, then the number of the question.

        Returns:
            The final hidden states float32[B, T, hidden], and for the probes of training the image
            tokens float32[B, image_tokens, hidden] as the vision tower gives them and as they are
            after two text layers.
        """
        seen = self.visual(images)
        x = self.with_image(self.model.embed_tokens(tokens), seen)
        end = PREFIX + self.size.image_tokens
        order = torch.arange(tokens.shape[1])
        same = (blocks[:, None, :] == blocks[:, :, None]) | (blocks[:, None, :] == 0)
        mask = (same & (order <= order[:, None]))[:, None]
        starts = F.pad(blocks[:, 1:] != blocks[:, :-1], (1, 0))
        first = torch.where(starts, order, 0).cummax(1).values
        positions = torch.where(blocks == 0, order, order - first + end)
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        for index, layer in enumerate(self.model.layers):
            x, _ = layer(x, cos, sin, mask=mask)
            if index == 1:
                placed = x[:, PREFIX:end]
        return self.model.norm(x), seen, placed

    def with_image(self, x: Tensor, seen: Tensor) -> Tensor:
        """Put image features in place of their placeholders."""
        return torch.cat((x[:, :PREFIX], seen, x[:, PREFIX + self.size.image_tokens :]), 1)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.model.embed_tokens.weight.T


def initialise(model: nn.Module, seed: int) -> None:
    """std 1/sqrt(fan in) for matrices, 0.5 for the embedding, residual outputs halved.

    The last norm starts at 0.2 so that the first logits, read off the same embedding, are near 1.
    With the reference's std of 0.02 a model of this size stays blind.
    """
    generator = torch.Generator().manual_seed(seed)
    residual = ("o_proj.weight", "down_proj.weight", "attn.proj.weight", "mlp.fc2.weight")
    for name, weight in model.named_parameters():
        with torch.no_grad():
            if name.endswith("bias"):
                weight.zero_()
            elif weight.ndim == 1:
                weight.fill_(0.2 if name == "model.norm.weight" else 1.0)
            else:
                scale = 1 / math.sqrt(weight[0].numel())
                if name.endswith("embed_tokens.weight"):
                    scale = 0.5
                elif name.endswith("patch_embed.proj.weight"):
                    scale /= math.sqrt(2)
                elif name.endswith(residual):
                    scale *= 0.5
                weight.normal_(0, scale, generator=generator)
                if name.endswith("patch_embed.proj.weight"):
                    weight[:, :, 1] = weight[:, :, 0]
