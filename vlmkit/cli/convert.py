"""``vlmkit convert``: a checkpoint as a folder for MLX."""

from __future__ import annotations

import argparse

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say
from vlmkit.errors import VlmkitError


def run_convert(args: argparse.Namespace) -> None:
    """Convert, and say what came out."""
    require_mlx()
    from vlmkit.config.validate import error_at
    from vlmkit.conversion import convert, load_convert
    from vlmkit.conversion.packing import count_schemes

    loaded = load_convert(args.config, overrides=args.overrides)
    try:
        done = convert(
            args.source,
            args.target,
            loaded.config,
            revision=args.revision,
            trust_remote_code=args.trust_code,
        )
    except VlmkitError as error:
        raise error_at(loaded.tree, error.path, str(error)) if error.path else error from None
    files = "1 file" if done.num_files == 1 else f"{done.num_files} files"
    say(
        f"{done.folder}: {done.num_bytes / 10**6:,.1f} MB in {files}, "
        f"{done.bits_per_weight:.2f} bits per weight"
    )
    if done.schemes:
        say(count_schemes(done.schemes))
