"""``vlmkit reproduce`` and ``vlmkit check``: what they print, and how they exit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vlmkit.api
from tests.cli.reply import Command
from tests.experiment.drifting import drifting
from tests.experiment.studies import write_study
from vlmkit.errors import VlmkitError
from vlmkit.experiment.chosen import Choice
from vlmkit.experiment.manifest import FILE, FORMAT
from vlmkit.experiment.reproduce import reproduce
from vlmkit.experiment.runner import run_experiment
from vlmkit.experiment.store import RECORDS

IMAGE = "vlmkit:shapes/samples/count_all.png"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    overrides = ["arms.warm.sampling.0.temperature=9", "limits.samples=2", "top_logprobs=2"]
    return run_experiment(write_study(folder), folder / "run", overrides=overrides).folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def edit(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest of a run."""
    manifest = json.loads((run / FILE).read_text())
    change(manifest)
    (run / FILE).write_text(json.dumps(manifest))


def test_an_exact_run_exits_with_0(command: Command, made: Path) -> None:
    reply = command("reproduce", str(made))
    assert reply.code == 0, reply.stderr
    first, head, *arms = reply.stdout.splitlines()
    assert first == "nothing has changed since the run: weights, data, code, versions, device"
    assert head.startswith(f"{made}, run on 20")
    assert head.endswith(": 8 of 8 responses ran again, 8 are token-exact")
    assert arms == ["  greedy  4 of 4", "  warm    4 of 4"]
    assert "8/8 units, " in reply.stderr


def test_a_divergence_exits_with_1_and_shows_both_distributions(
    command: Command, run: Path
) -> None:
    edit(run, lambda manifest: manifest["arms"]["warm"]["sampling"][0].update(temperature=2.0))
    edit(run, lambda manifest: manifest["versions"].update(mlx="0.1"))
    argv = ("reproduce", str(run), "--arm", "warm", "--samples", "1", "--batch-size", "2")
    reply = command(*argv, "--top", "2")
    assert reply.code == 1, reply.stderr
    lines = reply.stdout.splitlines()
    assert lines[0] == "changed since the run:"
    assert re.fullmatch(r"  config: [0-9a-f]{16}… -> [0-9a-f]{16}…", lines[1])
    assert lines[2].startswith("  version of mlx: 0.1 -> ")
    place = next(
        place
        for place, line in enumerate(lines)
        if re.fullmatch(r"warm, sample shapes-0, seed [01]: differs first at token \d of 6", line)
    )
    assert re.fullmatch(r'  recorded  ".*" \(id \d+\)', lines[place + 1])
    assert re.fullmatch(r'  now       ".*" \(id \d+\)', lines[place + 2])
    assert lines[place + 3] == "  the model's distribution as recorded"
    assert "  the model's distribution now" in lines
    assert "  after the sampler chain now, which the token is drawn from" in lines
    assert any(line.endswith("<- now") for line in lines)
    assert any(line.endswith("<- recorded") for line in lines)

    document = json.loads(command(*argv, "--json", "--no-sharing").stdout)
    assert (document["num_units"], document["num_recorded"]) == (2, 8)
    assert document["num_exact"] < 2
    assert [change["name"] for change in document["changes"]] == ["config", "version of mlx"]
    (one, *_) = document["divergences"]
    assert [found["name"] for found in one["distributions"]] == [
        "recorded model", "model", "drawn from",
    ]  # fmt: skip
    assert len(one["distributions"][1]["top"]) == 5


def test_an_ending_that_differs_is_shown(command: Command, run: Path) -> None:
    lines = [json.loads(line) for line in (run / RECORDS).read_text().splitlines()]
    by_unit = {(line["arm"], line["sample"], line["seed"]): line for line in lines}
    by_unit["greedy", "shapes-0", 0]["finish_kind"] = "eos"
    by_unit["greedy", "shapes-0", 1]["text"] = "other"
    by_unit["greedy", "shapes-1", 0]["error"] = "NaN"
    by_unit["greedy", "shapes-1", 1]["token_ids"].append(3)
    (run / RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    reply = command("reproduce", str(run), "--arm", "greedy")
    assert reply.code == 1
    for text in (
        "seed 0: all tokens are equal, but the ending differs\n  recorded  ended by eos\n"
        "  now       ended by max_tokens",
        'seed 1: all tokens are equal, but the text differs\n  recorded  "other"',
        "seed 0: all tokens are equal, but the error differs\n  recorded  error: NaN\n"
        "  now       no error",
        "seed 1: differs first at token 7 of 7",
        "  now       had ended, by max_tokens\n  no distribution is known here",
    ):
        assert text in reply.stdout


def _without_data(run: Path) -> None:
    edit(run, lambda manifest: manifest.update(dataset={"kind": "jsonl", "path": "gone.jsonl"}))


def _with_code(run: Path) -> None:
    stage = {"kind": "external", "factory": "os:getcwd"}
    edit(run, lambda manifest: manifest["arms"]["warm"].update(sampling=[stage]))


def _empty(run: Path) -> None:
    (run / RECORDS).unlink()


def _newer(run: Path) -> None:
    edit(run, lambda manifest: manifest.update(format=FORMAT + 1))


def _unknown_key(run: Path) -> None:
    edit(run, lambda manifest: manifest["arms"]["warm"].update(smapling=[]))


def _no_model(run: Path) -> None:
    edit(run, lambda manifest: manifest["arms"]["warm"].update(model="./gone"))


def _fewer_data(run: Path) -> None:
    edit(run, lambda manifest: manifest["dataset"].update(num_samples=1))


def _as_it_is(run: Path) -> None:
    return None


# what is done to the run, the choice, the message
MISTAKES: dict[str, tuple[Callable[[Path], None], Choice, str]] = {
    "no such sample": (
        _as_it_is, Choice(sample="x"), r"no record of a sample 'x'; there is shapes-0, shapes-1",
    ),
    "no such arm": (_as_it_is, Choice(arm="wram"), r"no arm 'wram'; did you mean 'warm'"),
    "both": (_as_it_is, Choice(1, "shapes-0"), "--samples and --sample both say which"),
    "no samples": (_as_it_is, Choice(0), "--samples is 0; it must be 1 or more"),
    "no records": (_empty, Choice(), "has no records yet"),
    "a newer version": (_newer, Choice(), "written by a newer vlmkit"),
    "data that are gone": (_without_data, Choice(), r"manifest\.json: dataset: .*gone\.jsonl"),
    "fewer data": (_fewer_data, Choice(), "sample 'shapes-1' is no longer in the data set"),
    "code": (_with_code, Choice(), r"'os:getcwd' names code to run.*in the arm 'warm'"),
    "an unknown key": (
        _unknown_key, Choice(), r"manifest\.json: smapling: unknown key; did you mean 'sampling'",
    ),
    "a model that is gone": (_no_model, Choice(), r"manifest\.json: model: .*gone"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(command: Command, run: Path, case: str) -> None:
    prepare, choice, message = MISTAKES[case]
    prepare(run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(VlmkitError, match=message) as caught:
        reproduce(run, choice)
    assert "\n" not in str(caught.value)
    flags = ("samples", choice.num_samples), ("sample", choice.sample), ("arm", choice.arm)
    given = [word for name, value in flags if value is not None for word in (f"--{name}", value)]
    reply = command("reproduce", str(run), *map(str, given))
    assert (reply.code, reply.stdout) == (2, "")
    (line,) = reply.stderr.splitlines()
    assert re.match(rf"vlmkit: error: .*({message})", line)
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("reproduce", "nowhere"), "nowhere: no such folder"),
        (("reproduce", "configs"), "configs: no run directory"),
        (("reproduce", "RUN", "--top", "0"), "--top is 0; it must be 1 or more"),
        (("reproduce", "RUN", "--batch-size", "0"), "--batch-size is 0; it must be 1 or more"),
        (("reproduce", "RUN", "--seed", "1"), "--seed is an option of"),
        (("check",), "required: check"),
        (("check", "everything"), "invalid choice: 'everything'"),
        (("check", "batch-invariance"), "no prompt"),
        (("check", "batch-invariance", "--prompt", "a", "--batch-sizes", "1;2"), "is no list"),
        (("check", "batch-invariance", "--prompt", "a", "--batch-sizes", "0"), "0 is no number"),
        (("check", "batch-invariance", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_mistakes_of_the_command_line(
    command: Command, made: Path, argv: tuple[str, ...], message: str
) -> None:
    reply = command(*(str(made) if word == "RUN" else word for word in argv))
    assert (reply.code, reply.stdout) == (2, "")
    (line,) = reply.stderr.splitlines()
    assert line.startswith("vlmkit: error: ")
    assert message in line


CHECK = (
    *("check", "batch-invariance", "--prompt", "How many?", "--image", IMAGE, "--max-tokens", "3"),
    *("--batch-sizes", "1,2"),
)


def test_a_device_that_keeps_rows_apart(command: Command) -> None:
    reply = command(*CHECK)
    assert reply.code == 0, reply.stderr
    head, *rows, foot = reply.stdout.splitlines()
    assert head.split() == [
        *("rows", "place", "neighbours", "output"),
        *("first", "difference", "largest", "logprob", "change"),
    ]
    assert [row.split()[:4] for row in rows] == [
        ["1", "1", "none", "0"],
        *(["2", place, kind, "0"] for kind in ("equal", "shorter", "longer") for place in "12"),
    ]
    assert foot.startswith("1 output of 8 runs, on Device(")


def test_a_device_that_mixes_rows_exits_with_1(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = vlmkit.api.load

    def load(*args: Any, **kwargs: Any) -> Any:
        model, processor = real(*args, **kwargs)
        return drifting(model, 1.0), processor

    monkeypatch.setattr(vlmkit.api, "load", load)
    reply = command(*CHECK)
    assert reply.code == 1, reply.stderr
    assert re.search(r"^\d different outputs of 8 runs", reply.stdout, re.MULTILINE)
    assert re.search(r'^output 1: "', reply.stdout, re.MULTILINE)
    assert re.search(r"equal +1 +token [123] ", reply.stdout)
    document = json.loads(command(*CHECK, "--json").stdout)
    assert document["num_outputs"] > 1
    assert len(document["outcomes"]) == 7


def test_what_takes_very_many_tokens_is_said_first(command: Command, run: Path) -> None:
    def ask_for_more(manifest: dict[str, Any]) -> None:
        for arm in manifest["arms"].values():
            arm["stopping"] = [{"kind": "max_tokens", "max_tokens": 10**6}]

    edit(run, ask_for_more)
    reply = command("reproduce", str(run))
    assert reply.code == 2
    assert reply.stderr == (
        f"vlmkit: error: {run}: to run 8 responses again takes up to 8,000,000 tokens (recorded are"
        " 48), and 500,000 are allowed; choose fewer with --samples or --arm, or add --long\n"
    )


def test_how_many_tokens_it_may_take_is_an_argument(made: Path) -> None:
    with pytest.raises(VlmkitError, match=r"up to 48 tokens .*, and 47 are allowed"):
        reproduce(made, max_tokens=47)
    assert reproduce(made, Choice(num_samples=1), max_tokens=24).num_exact == 4
