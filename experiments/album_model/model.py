"""The model of `experiments.shapes_model` for several images in one prompt."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from experiments.album_model.data import SIDE, Batch, encode
from experiments.album_model.heads import induce
from experiments.shapes_model.model import Text, initialise
from experiments.shapes_model.vision import Size, Vision

VOCABULARY = 800
SIZE = Size(vocabulary=VOCABULARY, grid=2 * SIDE, theta=1e6)


def rotary(positions: Tensor, size: Size = SIZE) -> tuple[Tensor, Tensor]:
    """cos and sin of the multimodal rotary embedding, float32[B, 1, T, head] each."""
    inverse = size.theta ** -(torch.arange(0, size.head, 2).float() / size.head)
    parts = (positions[..., None] * inverse).split(list(size.mrope_section), -1)
    angles = torch.cat([part[axis] for axis, part in enumerate(parts)], -1)
    angles = torch.cat((angles, angles), -1)[:, None]
    return angles.cos(), angles.sin()


class AlbumModel(nn.Module):
    """The whole model; parameters are named as in the hub's Qwen2-VL files."""

    def __init__(self, size: Size = SIZE) -> None:
        super().__init__()
        self.size = size
        self.visual = Vision(size)
        self.model = Text(size)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits float32[N, vocabulary] of the targets and their ids int64[N]."""
        tokens = torch.from_numpy(batch.tokens)
        blocks = torch.from_numpy(batch.blocks)
        x = self.model.embed_tokens(tokens)
        if len(batch.images):
            seen = self.visual(torch.from_numpy(batch.images)).flatten(0, 1)
            x = x.masked_scatter((tokens == encode("<|image_pad|>")[0])[..., None], seen)
        order = torch.arange(tokens.shape[1])
        same = (blocks[:, None, :] == blocks[:, :, None]) | (blocks[:, None, :] == 0)
        mask = (same & (order <= order[:, None]))[:, None]
        cos, sin = rotary(torch.from_numpy(batch.positions))
        for layer in self.model.layers:
            x, _ = layer(x, cos, sin, mask=mask)
        wanted = torch.from_numpy(batch.targets)[:, 1:] > 0
        hidden = self.model.norm(x[:, :-1][wanted])
        return hidden @ self.model.embed_tokens.weight.T, tokens[:, 1:][wanted]


def begun(weights: Path, seed: int) -> AlbumModel:
    """The model with the eyes and the words of shapes; the layers of its text part are drawn anew.

    Those of shapes write activations fifty times as large as what they read, in which nothing new
    is found. Embeddings of new tokens are drawn as wide as the others.
    """
    model = AlbumModel()
    initialise(model, seed)
    state = load_file(weights)
    name = "model.embed_tokens.weight"
    state = {key: value.float() for key, value in state.items()}
    known = encode("<|endoftext|>")[0]
    generator = torch.Generator().manual_seed(seed)
    table = torch.empty(VOCABULARY, SIZE.hidden)
    table.normal_(0, state[name][:known].std().item(), generator=generator)
    table[: known + 10] = state[name][: known + 10]
    kept = {key: value for key, value in state.items() if key.startswith("visual.")}
    model.load_state_dict({**model.state_dict(), **kept, name: table})
    induce(model.model, SIZE, generator)
    return model
