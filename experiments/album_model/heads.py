"""Heads that find what stood behind the same name before, set into a model before it is trained.

Finding a digit by its name takes two layers that mean nothing without each other: one in which
every token learns what stands in front of it, one in which a query looks for a token that has the
same in front (an induction head: Olsson et al. 2022, arXiv 2209.11895). From weights that have
neither, 700 steps on a handful of notes did not begin to. So they are set: two heads that look one
and two tokens back by the biases of queries and keys, and two that match and copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.shapes_model.model import Attention, Text
from experiments.shapes_model.vision import Size

LOOK_BACK = 7.0
LOOK_BACK_FREQUENCIES = 8
MATCH = 1.2
COPY = 3.0


@torch.no_grad()
def induce(text: Text, size: Size, generator: torch.Generator) -> None:
    """Set two heads of the first layer and two of the second."""
    written = _look_back(text.layers[0].self_attn, size, generator)
    _match_and_copy(text.layers[1].self_attn, size, written, generator)


def _look_back(attention: Attention, size: Size, generator: torch.Generator) -> Tensor:
    """Let the first two heads read the tokens one and two before; return what they write with.

    With k the bias of the keys and R(n) the rotary rotation by n tokens, a bias R(-n) k of the
    queries makes the score largest n tokens back, whatever the tokens are.
    """
    head, half = size.head, size.head // 2
    angles = size.theta ** -(torch.arange(half).float() / half)
    strength = torch.where(torch.arange(half) < LOOK_BACK_FREQUENCIES, LOOK_BACK, 0.0)
    attention.k_proj.weight[:head] *= 0.1
    attention.k_proj.bias[:head] = torch.cat((strength, torch.zeros(half)))
    attention.v_proj.weight[:head].normal_(0, size.hidden**-0.5, generator=generator)
    attention.v_proj.bias[:head] = 0
    written = torch.empty(size.hidden, 2 * head).normal_(0, size.hidden**-0.5, generator=generator)
    for place, offset in enumerate((1, 2)):
        own = slice(place * head, (place + 1) * head)
        attention.q_proj.weight[own] *= 0.1
        turned = (strength * torch.cos(offset * angles), -strength * torch.sin(offset * angles))
        attention.q_proj.bias[own] = torch.cat(turned)
        attention.o_proj.weight[:, own] = written[:, own]
    return written


def _match_and_copy(
    attention: Attention, size: Size, written: Tensor, generator: torch.Generator
) -> None:
    """Let a head look for the token in front of this one two before others, and one the one before.

    At the colon of ``Ada: 7`` the first query is Ada, one token back; the digit after the other
    ``Ada:`` has her two tokens back, so there the key is the same. The second query is what stands
    two tokens back, as red does at the colon of ``red star: 4``; pictures learn to have such keys.
    All use the slow half of the rotary frequencies, which turn little within a prompt. What is
    found is written as it is.
    """
    head, half = size.head, size.head // 2
    slow = torch.arange(head) % half >= half // 2
    mixed = torch.empty(head, head).normal_(0, head**-0.5, generator=generator)
    read = MATCH * slow[:, None] * (mixed @ torch.linalg.pinv(written).view(2, head, -1))
    attention.k_proj.weight[:head], attention.k_proj.bias[:head] = read[1], 0
    attention.v_proj.weight[:head].normal_(0, size.hidden**-0.5, generator=generator)
    attention.v_proj.bias[:head] = 0
    for place in range(2):
        own = slice(place * head, (place + 1) * head)
        attention.q_proj.weight[own], attention.q_proj.bias[own] = read[place], 0
        attention.o_proj.weight[:, own] = COPY * attention.v_proj.weight[:head].T
