"""The arguments of ``vlmkit convert``. Standard library only, like the parser."""

from __future__ import annotations

from typing import Any

CONVERT_FLAGS = ("revision", "trust_code")


def add_convert_command(commands: Any) -> None:
    """Add ``convert`` to the subcommands."""
    convert = commands.add_parser(
        "convert",
        help="write a checkpoint as a folder for MLX, with packed weights if asked for",
        description="Write a checkpoint anew under the names and in the layouts of MLX: packed as "
        "the config says, in another dtype, in files of another size. The folder appears when it "
        "is whole.",
        epilog="Example: vlmkit convert owner/name name-4bit vlmkit:convert/affine_4bit.yaml",
        allow_abbrev=False,
    )
    convert.add_argument("source", metavar="SOURCE", help="the checkpoint: folder or hub id")
    convert.add_argument("target", metavar="TARGET", help="the new folder")
    convert.add_argument(
        "words", nargs="*", metavar="CONFIG key=value",
        help="a YAML file of a conversion (vlmkit:convert/PATH: one that 'vlmkit configs' lists), "
        "and overrides such as quantization.bits=8",
    )  # fmt: skip
    convert.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    convert.add_argument(
        "--trust-code",
        action="store_true",
        help="run the Python file that a text-only checkpoint may bring along",
    )
