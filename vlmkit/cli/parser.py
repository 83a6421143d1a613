"""The arguments of every subcommand. Standard library only: this is all that ``--help`` loads."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from vlmkit import __version__
from vlmkit.cli.check_parser import CHECK_FLAGS, add_check_command
from vlmkit.cli.experiment_parser import EXPERIMENT_FLAGS, add_experiment_commands
from vlmkit.cli.lookup import add_lookup_commands
from vlmkit.cli.words import sort_words
from vlmkit.errors import VlmkitError, nearest
from vlmkit.names.words import flag_words

_REQUEST_FLAGS = (
    *("model", "revision", "dtype", "prompt", "image", "audio", "video", "enable_thinking"),
    *("continue_final_message", "prefill_response"),
)
_OWN_FLAGS = {
    "generate": ("json", "logprobs", "no_stream"),
    "trace": ("top", "step", "picture", "out", "from"),
    "describe": ("json",),
    "schema": ("out", "experiment", "kv_eval"),
    "models": ("json",),
    **EXPERIMENT_FLAGS,
    "check": CHECK_FLAGS,
    "configs": (),
    "stages": ("names",),
    "doctor": ("model", "revision", "dtype", "json"),
    "inspect": ("revision", "json"),
    "completion": (),
}


class ParamFlag(NamedTuple):
    """A flag for one generation parameter; the parameter's name is the flag's in snake case."""

    name: str
    options: dict[str, Any]


def _number(kind: type, metavar: str, text: str) -> dict[str, Any]:
    return {"type": kind, "metavar": metavar, "help": text}


PARAM_FLAGS = (
    ParamFlag("max_tokens", _number(int, "N", "tokens to generate at most (256)")),
    ParamFlag("temperature", _number(float, "T", "0 is greedy decoding (0)")),
    ParamFlag("top_p", _number(float, "P", "keep the most likely tokens of mass P; 1 is off (1)")),
    ParamFlag("top_k", _number(int, "K", "keep the K most likely tokens; 0 is off (0)")),
    ParamFlag("min_p", _number(float, "M", "keep tokens of at least M x the largest p; 0 is off")),
    ParamFlag("repetition_penalty", _number(float, "R", "above 1 discourages repetition (off)")),
    ParamFlag("repetition_context_size", _number(int, "N", "tokens it looks back (20)")),
    ParamFlag("presence_penalty", _number(float, "A", "subtracted once for a seen token (off)")),
    ParamFlag("frequency_penalty", _number(float, "B", "subtracted per occurrence (off)")),
    ParamFlag("seed", _number(int, "S", "the same seed draws the same tokens (0)")),
    ParamFlag("thinking_budget", _number(int, "N", "tokens of thinking at most (no limit)")),
    ParamFlag(
        "stop",
        {"action": "append", "metavar": "TEXT", "help": "end before this text; repeatable"},
    ),
    ParamFlag(
        "eos_tokens",
        {"action": "append", "metavar": "TOKEN", "help": "another end token; repeatable"},
    ),
    ParamFlag(
        "skip_special_tokens",
        {"action": "store_true", "help": "leave special tokens out of the text"},
    ),
    ParamFlag(
        "resize_shape",
        {"type": int, "nargs": 2, "metavar": ("H", "W"), "help": "resize images to H x W pixels"},
    ),
    ParamFlag("fps", _number(float, "F", "frames per second to take of a video (2)")),
    ParamFlag("max_frames", _number(int, "N", "frames to take of a video at most (768)")),
    ParamFlag("kv_bits", _number(int, "BITS", "quantize the KV cache (off)")),
    ParamFlag("kv_group_size", _number(int, "N", "values per quantization group (64)")),
    ParamFlag("max_kv_size", _number(int, "N", "tokens the KV cache keeps (all)")),
    ParamFlag("prefill_step_size", _number(int, "N", "prompt tokens per prefill step (2048)")),
)


class _Parser(argparse.ArgumentParser):
    """argparse that leaves reporting to ``main``: one line, one exit code."""

    def error(self, message: str) -> NoReturn:
        raise VlmkitError(f"{message} (see {self.prog} --help)")


@functools.cache
def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="vlmkit",
        description="Generation with vision-language models on MLX.",
        epilog="Without a model, commands use the embedded one: "
        "vlmkit generate --prompt 'How many circles are there?' --image picture.png",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vlmkit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _add_generate(commands)
    _add_trace(commands)
    _add_describe(commands)
    _add_schema(commands)
    add_experiment_commands(commands)
    add_check_command(commands, _add_run_arguments)
    models = commands.add_parser("models", help="list the supported model families")
    models.add_argument("--json", action="store_true", help="print JSON")
    add_lookup_commands(commands)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse arguments; configs and ``a.b=c`` overrides may stand before or after flags.

    Raises:
        VlmkitError: an unknown flag, a value of the wrong type, two configs.
    """
    args, rest = parser.parse_known_args(argv)
    args.argv = list(argv)
    unknown = [item for item in rest if item.startswith("-")]
    if unknown:
        raise VlmkitError(_unknown_flag(unknown[0].partition("=")[0], args.command))
    if "words" not in args:
        if rest:
            raise VlmkitError(f"unexpected argument {rest[0]!r}")
        return args
    words = [*args.words, *rest]
    args.config, args.overrides = sort_words(words, argv)
    return args


def _add_generate(commands: Any) -> None:
    command = commands.add_parser(
        "generate",
        help="generate text from a prompt and images",
        description="Generate text from a YAML config, from flags, or from both: "
        "overrides win over flags, flags over the config.",
        allow_abbrev=False,
    )
    _add_run_arguments(command)
    command.add_argument("--json", action="store_true", help="print one JSON object at the end")
    command.add_argument(
        "--logprobs", action="store_true", help="with --json: the last token's log-probabilities"
    )
    command.add_argument(
        "--no-stream", action="store_true", help="print the text when it is complete"
    )


def _add_trace(commands: Any) -> None:
    command = commands.add_parser(
        "trace",
        help="generate, and show what each sampler stage did to each token",
        description="Generate like 'vlmkit generate', and show what each sampler stage did to the "
        "distribution of each token: a row per token, or with --step all stages of one token.",
        allow_abbrev=False,
    )
    _add_run_arguments(command)
    trace = command.add_argument_group("trace")
    trace.add_argument("--top", type=int, metavar="N", help="tokens to list per stage (10)")
    trace.add_argument(
        "--step", type=int, metavar="N", help="show all stages of one token; the first is 0"
    )
    trace.add_argument(
        "--picture", metavar="FILE",
        help="draw one step as .png, .svg or .pdf; without --step the one most was removed from",
    )  # fmt: skip
    trace.add_argument("--out", metavar="FILE", help="write the trace as JSONL while it runs")
    trace.add_argument(
        "--from", dest="source", metavar="FILE", help="show a saved trace; loads no model"
    )


def _add_describe(commands: Any) -> None:
    command = commands.add_parser(
        "describe",
        help="show the resolved pipeline, stage by stage, and where each value came from",
        allow_abbrev=False,
    )
    _add_run_arguments(command)
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_schema(commands: Any) -> None:
    command = commands.add_parser(
        "schema",
        help="print the JSON Schema of a run or an experiment for editors",
        allow_abbrev=False,
    )
    which = command.add_mutually_exclusive_group()
    which.add_argument("--experiment", action="store_true", help="that of an experiment")
    which.add_argument("--kv-eval", action="store_true", help="that of a kv-eval file")
    command.add_argument("--out", metavar="DIR", help="write it into this folder instead")


def _add_run_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "words", nargs="*", metavar="CONFIG key=value",
        help="a YAML config (vlmkit:PATH: one that 'vlmkit configs' lists), and overrides such as "
        "sampling.0.temperature=0.5",
    )  # fmt: skip
    command.add_argument(
        "--trust-code",
        action="store_true",
        help="run code that the config names (external stages as package.module:function)",
    )
    request = command.add_argument_group("model and request")
    request.add_argument("--model", metavar="PATH", help="folder or hub id (the embedded 'shapes')")
    request.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    request.add_argument("--dtype", choices=("float32", "float16", "bfloat16"))
    request.add_argument("--prompt", metavar="TEXT", help="'-' reads it from standard input")
    request.add_argument("--image", action="append", metavar="PATH", help="path or URL; repeatable")
    request.add_argument("--audio", action="append", metavar="PATH", help="path or URL; repeatable")
    request.add_argument("--video", action="append", metavar="PATH", help="path or URL; repeatable")
    request.add_argument(
        "--enable-thinking",
        action="store_true",
        default=None,
        help="let the model think before it answers",
    )
    request.add_argument(
        "--prefill-response", metavar="TEXT", help="the beginning of the answer: go on from it"
    )
    request.add_argument(
        "--continue-final-message", action="store_true", default=None,
        help="go on from the last of the config's messages, which is the assistant's",
    )  # fmt: skip
    params = command.add_argument_group("generation", "defaults in parentheses")
    for flag in PARAM_FLAGS:
        params.add_argument(
            "--" + flag.name.replace("_", "-"), dest=flag.name, default=None, **flag.options
        )


def _unknown_flag(flag: str, command: str | None) -> str:
    takers = [name for name in _OWN_FLAGS if flag in _flags_of(name)]
    if takers and command is not None:
        where = " and ".join(f"'vlmkit {name}'" for name in takers)
        return f"{flag} is an option of {where}, not of 'vlmkit {command}'"
    commands = _OWN_FLAGS if command is None else (command,)
    known = {name for one in commands for name in _flags_of(one)}
    words = flag_words(flag, known) if "--prompt" in known else None
    return f"unknown option {flag}" + (f": {words}" if words else nearest(flag, known))


def _flags_of(command: str) -> list[str]:
    names = [*_OWN_FLAGS[command], "help"]
    if command in ("generate", "trace", "describe", "check"):
        names += ["trust_code", *_REQUEST_FLAGS, *(flag.name for flag in PARAM_FLAGS)]
    return ["--" + name.replace("_", "-") for name in names]


def given_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The model, request and generation flags that were given, by name."""
    names = [*_REQUEST_FLAGS, *(flag.name for flag in PARAM_FLAGS)]
    given = {name: getattr(args, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}
