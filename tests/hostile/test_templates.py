"""Whatever a chat template does takes bounded time and memory, and is a text or one line."""

from __future__ import annotations

import hashlib
import threading
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.limited import run_code
from tests.processors.tiny import SHAPES
from vlmkit.errors import VlmkitError
from vlmkit.processors import load_processor
from vlmkit.processors.chat_template import render_chat_template
from vlmkit.templates import helper, process
from vlmkit.templates.helper import is_known_good
from vlmkit.templates.limits import MAX_SOURCE_CHARS

CHAT = [{"role": "user", "content": "Hi"}]
MEMORY = [
    "{{ 'a' * 10**9 * 4 }}",
    "{{ 'a' | center(10**10) }}",
    "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'.zfill(10**10) }}",
    "{{ '\t'.expandtabs(10**10) }}",
    "{{ '%2000000000d' % 1 }}",
    "{{ '%.2000000000f' % 1 }}",
    "{{ '{:>2000000000}'.format(1) }}",
    "{{ (1).to_bytes(10**10, 'big') }}",
    "{{ messages | tojson(indent=10**9) }}",
    "{{ ('a' * 9999)" + " | replace('a', 'aaaaaaaaaa')" * 9 + " }}",
    "{{ messages | slice(10**9) | list }}",
    "{{ messages | batch(10**9, 'a') | list }}",
    "{{ ['a' * 10**6] * 10**9 }}",
    "{{ ['a' * 10**6] | join | wordwrap(1) | indent(10**6) }}",
    "{% set x = 'aaaaaaaaaaaaaaaa' %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
    "{% for a in 'a' * 10**8 %}{{ 'b' * 999 }}{% endfor %}",
    "{% for a in range(99999) %}{{ 'b' * 9999 }}{% endfor %}",
    "{% set x %}{% for a in range(99999) %}{{ 'b' * 99999 }}{% endfor %}{% endset %}{{ x }}",
    "{{ lipsum(n=10**7) }}",
    "{{ dict.fromkeys(range(99999), 'a' * 10**6) | tojson }}",
]
TIME = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 10**(10**8) }}",
    "{{ ('a' * 10**6).replace('', 'b' * 300) | urlize | length }}{{ 7**(10**8) % 9 }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x == x | list }}{{ x }}",
    "{% set x = (1,) %}" + "{% set x = (x, x) %}" * 60 + "{{ {x: 1} }}",
    "{% for m in messages recursive %}{{ loop([1, 2] * 9) if loop.depth < 20 }}{% endfor %}",
    "{% for a in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
]
LONG = {
    "a literal of 30 MB": "{{ '" + "a" * 30_000_000 + "' }}",
    "a text of 30 MB": "a" * 30_000_000,
    "one character too many": "a" * (MAX_SOURCE_CHARS + 1),
}
MANY = [  # within the length, and heavy to read or to compile
    "{{ 1 }}" * 140_000,
    "{% set a = 1 %}" * 60_000,
    "{{ " + "1+" * 400_000 + "1 }}",
    "{{ " + "a~" * 400_000 + "a }}",
    "{{ [" + "1," * 400_000 + "] }}",
    "{{ " + "[" * 400_000,
    "{% if a %}" * 90_000,
    "{% macro f() %}" * 60_000,
    "{{ 0x" + "f" * 900_000 + " }}",
    "{{ " + "9" * 900_000 + " }}",
    "{%" + " " * 900_000,
    "{#" * 400_000,
    "{{ '" * 200_000,
]
SETUP = """
from vlmkit.processors.chat_template import render_chat_template
def run(source):
    chat = [{"role": "user", "content": "Hi"}]
    return len(render_chat_template(source, chat, add_generation_prompt=False))
"""
SHORT = "from vlmkit.templates import process\nprocess.MAX_SECONDS = 0.4\n"


def rendered(source: str) -> str:
    return render_chat_template(source, CHAT, add_generation_prompt=False, place="a.jinja")


def test_time_and_memory() -> None:
    told = run_code(SHORT + SETUP, [*MEMORY[::3], *TIME[::3]])
    assert all(isinstance(line, str) for line in told)


@pytest.mark.slow
@pytest.mark.parametrize("source", [*MEMORY, *TIME, *MANY])
def test_time_and_memory_under_the_real_limits(source: str) -> None:
    (told,) = run_code(SETUP, [source])
    print(told)


@pytest.mark.parametrize("source", LONG.values(), ids=LONG)
def test_the_length_of_a_template_is_limited(source: str) -> None:
    with pytest.raises(VlmkitError, match=r"^a\.jinja: the chat template has [\d,]+ characters"):
        rendered(source)


def test_a_template_ends_in_a_thread_and_the_next_one_runs() -> None:
    told: list[str] = []

    def run() -> None:
        try:
            rendered(TIME[0])
        except VlmkitError as error:
            told.append(str(error))

    with patch.object(process, "MAX_SECONDS", 0.2):
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(told) == 4
    assert set(told) == {
        "a.jinja: the chat template takes more than 0.2 seconds; pass chat_template="
    }
    assert rendered("{{ messages[0].content }}") == "Hi"


def test_memory_is_measured_where_the_system_sets_no_limit() -> None:
    told = r"^a\.jinja: the chat template asks for more memory"
    with patch.object(process, "MAX_MEMORY_BYTES", 2**20), pytest.raises(VlmkitError, match=told):
        rendered(TIME[0])


def test_a_helper_that_was_ended_is_replaced() -> None:
    assert rendered("Hi") == "Hi"
    for one in helper._idle:
        one._process.kill()
        one._process.wait()
    assert rendered("Hi") == "Hi"


def test_the_templates_that_need_no_helper_are_those_of_vlmkit() -> None:
    source = load_processor(SHAPES).chat_template
    assert source is not None
    assert is_known_good(source)
    assert {hashlib.sha256(source.encode()).hexdigest()} == helper.KNOWN_GOOD
    with patch.object(helper, "HelperProcess", side_effect=AssertionError):
        assert "Hi" in rendered(source)


# A small grammar of what can multiply.
numbers = st.sampled_from(["0", "3", "99999", "10**9", "2**63", "10**(10**8)", "-1", "1e308"])
values = st.recursive(
    st.sampled_from(["'a'", "'%s%s'", "'{0}{0}'", "x", "messages", "[1, 'b']", "{'k': x}", "none"])
    | numbers,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+*~%-/<"), inner),
        st.builds(
            "({} | {})".format,
            inner,
            st.sampled_from(
                [
                    "list",
                    "string",
                    "tojson",
                    "length",
                    "sum",
                    "sort",
                    "join(x)",
                    "upper",
                    "e",
                    "items",
                    "urlize",
                    "pprint",
                    "wordwrap(1)",
                    "xmlattr",
                    "reverse | list",
                    "unique | list",
                ]
            ),
        ),
        st.builds(
            "({} | {}({}))".format,
            inner,
            st.sampled_from(
                ["center", "indent", "replace('a',", "slice", "batch", "round", "truncate"]
            ).map(lambda name: name.removesuffix("(")),
            inner,
        ),
        st.builds(
            "({}).{}({})".format,
            inner,
            st.sampled_from(
                ["ljust", "join", "format", "zfill", "to_bytes", "encode", "split", "__class__"]
            ),
            inner,
        ),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
    ),
    max_leaves=6,
)
statements = st.recursive(
    values.map("{{{{ {} }}}}".format) | values.map("{{% set x = {} %}}".format),
    lambda inner: st.one_of(
        st.builds("{{% for y in {} %}}{}{{% endfor %}}".format, values, inner),
        st.builds("{{% for y in range({}) %}}{}{{% endfor %}}".format, numbers, inner),
        st.builds("{{% set x %}}{0}{0}{{% endset %}}".format, inner),
        st.builds(
            "{{% macro f(x) %}}{}{{{{ f({}) }}}}{{% endmacro %}}{{{{ f(1) }}}}".format,
            inner,
            values,
        ),
        st.builds("{}{}".format, inner, inner),
    ),
    max_leaves=5,
)


def holds(source: str) -> None:
    try:
        told = rendered(source)
    except VlmkitError as error:
        told = str(error)
        assert told.startswith(("a.jinja", "prompt: ")) and "\n" not in told  # noqa: PT018
    assert isinstance(told, str)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(statements)
def test_generated_templates(source: str) -> None:
    with patch.object(process, "MAX_SECONDS", 0.2):
        holds(source)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(statements)
def test_many_generated_templates(source: str) -> None:
    with patch.object(process, "MAX_SECONDS", 1):
        holds(source)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_any_text_as_a_template(data: bytes) -> None:
    holds("{{" + data.decode("latin-1"))
    holds(data.decode(errors="surrogateescape"))
