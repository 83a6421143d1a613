"""An answer that is begun, on the command line and in YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.reply import ROOT, Command

PICTURE = str(ROOT / "vlmkit" / "assets" / "shapes" / "samples" / "count_all.png")
ASK = ["--image", PICTURE, "--prompt", "Count the objects."]
CHAT = """\
messages:
  - {role: user, content: Count the objects.}
  - {role: assistant, content: "<think>"}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text)
    return str(path)


def test_every_way_gives_the_same(command: Command, tmp_path: Path) -> None:
    whole = command("generate", *ASK, "--enable-thinking")
    assert whole.code == 0
    path = write(tmp_path, CHAT + "template: {continue_final_message: true}\n")
    other = tmp_path / "other.yaml"
    other.write_text("prompt: Count the objects.\ntemplate: {prefill_response: <think>}\n")
    third = tmp_path / "third.yaml"
    third.write_text(CHAT)
    for words in (
        [*ASK, "--prefill-response", "<think>"],
        [*ASK, "template.prefill_response=<think>"],
        [path, "--image", PICTURE],
        [str(other), "--image", PICTURE],
        [str(third), "--image", PICTURE, "--continue-final-message"],
    ):
        assert command("generate", *words) == whole


def test_the_budget_sees_an_open_block(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path, CHAT + "template: {continue_final_message: true}\n")
    reply = command("generate", path, "--image", PICTURE, "--thinking-budget", "2", "--json")
    assert json.loads(reply.stdout)["text"] == " a3 1</think>4"
    budget = [*ASK, "--prefill-response", "<think> a3", "--thinking-budget", "0"]
    assert command("generate", *budget).stdout == "</think>4\n"


def test_a_negative_prompt_goes_on_from_the_same_beginning(command: Command) -> None:
    contrast = '{kind: cfg, scale: 2.0, negative_prompt: "Count the objects."}'
    ask = [*ASK, "--prefill-response", "<think> a3", "--json"]
    plain = json.loads(command("generate", *ask).stdout)
    reply = command("generate", *ask, f"contrast={contrast}")
    assert json.loads(reply.stdout)["token_ids"] == plain["token_ids"]


def test_a_conversation_without_a_begun_answer(command: Command, tmp_path: Path) -> None:
    chat = CHAT.partition("\n  - {role: assistant")[0]
    path = write(tmp_path, f"{chat}\nimages: [{PICTURE}]\n")
    assert command("generate", path) == command("generate", *ASK)


def test_describe_shows_them(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path, CHAT)
    origins = json.loads(command("describe", path, "--json").stdout)["origins"]
    assert origins["messages.1.content"] == f"{path}:3"
    flag = command("describe", *ASK, "--prefill-response", "x", "--json")
    assert json.loads(flag.stdout)["origins"]["template.prefill_response"] == "--prefill-response"


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (CHAT, ASK, ":2: messages: a prompt is given as well; leave one of the two out"),
        (CHAT, ["--prefill-response", "a"], "--prefill-response: template.prefill_response: begin"),
        (
            "prompt: a\ntemplate:\n  apply: false\n  prefill_response: b",
            [],
            ":4: template.prefill_response: begins the assistant's message, which is there already;"
            " use the end of the prompt",
        ),
        (
            "prompt: a\ntemplate:\n  continue_final_message: true",
            [],
            ":3: template.continue_final_message: the last of 'messages' must be the assistant's",
        ),
        ("prompt: a", ["--continue-final-message"], "--continue-final-message: template.continue"),
        (CHAT + "template: {apply: false}", [], ":4: template.apply: messages need the chat templ"),
        ("messages: [{role: user, contents: a}]", [], ":1: messages.0.contents: unknown key; did"),
        ("messages: [{role: usr, content: a}]", [], ":1: messages.0.role: must be 'system', "),
        ("messages:\n- {role: user}", [], ":2: messages.0.content: is required: what is said"),
        ("messages: hello", [], ":1: messages: must be a list, got 'hello'"),
        ("messages:\n- hello", [], ":2: messages.0: needs a mapping with keys such as role, cont"),
        ("prompt: a\ntemplate: {prefill_response: ''}", [], ":2: template.prefill_response: "),
        (
            CHAT.replace("<think>", "a</think>") + "template: {continue_final_message: true}",
            [],
            "continue_final_message: the last message closes a thinking block",
        ),
        ("messages: []", [], "no prompt: give --prompt TEXT"),
    ],
)
def test_refused(
    command: Command, tmp_path: Path, text: str, words: list[str], message: str
) -> None:
    path = write(tmp_path, text)
    reply = command("generate", path, *words)
    assert (reply.code, reply.stdout) == (2, "")
    assert reply.stderr.startswith("vlmkit: error: ")
    assert reply.stderr.count("\n") == 1
    assert message in reply.stderr
