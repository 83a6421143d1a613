"""``vlmkit reproduce``: whether a run comes out again, token by token."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say, say_json
from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from vlmkit.experiment.divergence import Candidate, Distribution, Divergence, Side
    from vlmkit.experiment.reproduce import Reproduction
    from vlmkit.experiment.restore import Change

_SHOWN = 10  # divergences in words; --json has all
_HASH_DIGITS = 16


def run_reproduce(args: argparse.Namespace) -> bool:
    """Run a run again and print what differs; tell whether nothing does."""
    for flag in ("top", "batch_size", "samples"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise VlmkitError(f"--{flag.replace('_', '-')} is {value}; it must be 1 or more")
    require_mlx()
    import msgspec

    from vlmkit.experiment.chosen import Choice
    from vlmkit.experiment.progress import Bars, Lines
    from vlmkit.experiment.reproduce import MAX_TOKENS, reproduce
    from vlmkit.experiment.running import Settings

    found = reproduce(
        args.run_folder,
        Choice(args.samples, args.sample, args.arm),
        Settings(args.batch_size, not args.no_sharing),
        top_n=args.top,
        max_tokens=None if args.long else MAX_TOKENS,
        trust_code=args.trust_code,
        progress=Bars(()) if sys.stderr.isatty() else Lines(),
        announce=None if args.json else _print_changes,
    )
    if args.json:
        counts = {"num_units": found.num_units, "num_exact": found.num_exact}
        say_json(json.dumps({**msgspec.to_builtins(found), **counts}, ensure_ascii=False))
    else:
        for line in _lines(found):
            say(line)
    return not found.divergences


def _print_changes(changes: list[Change]) -> None:
    if not changes:
        say("nothing has changed since the run: weights, data, code, versions, device")
    else:
        say("changed since the run:")
    for change in changes:
        say(f"  {change.name}: {_short(change.was)} -> {_short(change.now)}")


def _short(value: str | None) -> str:
    if value is None:
        return "none"
    is_hash = len(value) >= 32 and all(digit in "0123456789abcdef" for digit in value)
    return value[:_HASH_DIGITS] + "…" if is_hash else value


def _lines(found: Reproduction) -> Iterator[str]:
    yield (
        f"{found.run}, run on {found.created}: {found.num_units:,} of {found.num_recorded:,} "
        f"responses ran again, {found.num_exact:,} are token-exact"
    )
    width = max(len(arm.arm) for arm in found.arms)
    for arm in found.arms:
        yield f"  {arm.arm:<{width}}  {arm.num_exact:,} of {arm.num_units:,}"
    for divergence in found.divergences[:_SHOWN]:
        yield ""
        yield from _divergence(divergence)
    if (hidden := len(found.divergences) - _SHOWN) > 0:
        yield ""
        yield f"and {hidden:,} more, which --json prints"


def _divergence(one: Divergence) -> Iterator[str]:
    yield f"{one.arm}, sample {one.sample}, seed {one.seed}: {_place(one)}"
    for name, side in (("recorded", one.recorded), ("now", one.now)):
        yield f"  {name:<8}  {_side(one, side)}"
    if one.position is not None and not one.distributions:
        yield "  no distribution is known here (a search decided, or the response had ended)"
    for distribution in one.distributions:
        yield from _distribution(distribution)


def _place(one: Divergence) -> str:
    if one.position is None:
        return f"all tokens are equal, but the {one.what} differs"
    longest = max(one.recorded.num_tokens, one.now.num_tokens)
    return f"differs first at token {one.position + 1} of {longest}"


def _side(one: Divergence, side: Side) -> str:
    if one.what == "error":
        return "no error" if side.error is None else f"error: {side.error}"
    if one.position is None:
        return f"ended by {side.finish_kind}" if one.what == "ending" else _quoted(side.text)
    if side.token_id is None:
        return f"had ended, by {side.finish_kind}"
    return f"{_quoted(side.token or '')} (id {side.token_id})"


def _distribution(found: Distribution) -> Iterator[str]:
    names = {
        "recorded model": "the model's distribution as recorded",
        "model": "the model's distribution now",
        "drawn from": "after the sampler chain now, which the token is drawn from",
    }
    yield f"  {names[found.name]}"
    marks: dict[int, list[str]] = {}
    for name, candidate in (("recorded", found.recorded), ("now", found.now)):
        if candidate is not None:
            marks.setdefault(candidate.token_id, []).append(name)
    others = [
        candidate
        for candidate in (found.recorded, found.now)
        if candidate is not None and candidate not in found.top
    ]
    for candidate in [*found.top, *dict.fromkeys(others)]:
        mark = "  <- " + ", ".join(marks[candidate.token_id]) if candidate.token_id in marks else ""
        absent = "not recorded" if found.name == "recorded model" else "removed"
        yield f"    {_candidate(candidate, absent)}{mark}"


def _candidate(candidate: Candidate, absent: str) -> str:
    rank = "" if candidate.rank is None else f"{candidate.rank}."
    logprob = absent if candidate.logprob is None else f"{candidate.logprob:.4f}"
    return f"{rank:>6} {logprob:>12}  {_quoted(candidate.text)}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
