"""A third party's search, held to what the decode loop relies on."""

from __future__ import annotations

from typing import Any

from vlmkit.declare.external import External, make_external
from vlmkit.errors import VlmkitError
from vlmkit.search.protocol import Extend, Outcome, Search, SearchStep

GROUP = "vlmkit.search"


def external(config: External) -> Search:
    """Make the search that an installed package or a module of yours offers.

    The factory gets ``config.config`` as keyword arguments and returns a ``vlmkit.search.Search``.
    What its ``advance`` returns is checked at every step, which costs no wait for the device.

    Raises:
        VlmkitError: the factory can't be found, fails, or returns something else; a width or a
            number of results below 1; while running, an outcome that does not hold together.

    Example:
        >>> search = external(External(factory="experiments.own_search:first_tokens",
        ...                            config={"k": 3}))
        >>> search.name, search.width
        ('first_tokens', 3)
    """
    search = make_external(config, group=GROUP, result=Search)
    where = f"external: search {search.name!r} of factory {config.factory!r}"
    for name, value in (("width", search.width), ("num_return", search.num_return)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise VlmkitError(f"{where}: {name} is {value!r}; it has to be a whole number above 0")

    def advance(state: Any, step: SearchStep, extend: Extend) -> tuple[Any, Outcome]:
        result = search.advance(state, step, extend)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Outcome):
            raise _error(f"{where}: advance must return (state, Outcome), not {result!r:.60}")
        if problem := _problem(result[1], step, search):
            raise _error(f"{where}: advance gave {problem}")
        return result[0], result[1]

    return search._replace(advance=advance)


def _error(message: str) -> VlmkitError:
    return VlmkitError(message, path=("search",))


def _problem(outcome: Outcome, step: SearchStep, search: Search) -> str:
    """Say what is wrong with an outcome; empty where nothing is."""
    num_rows, num_ids = step.logprobs.shape
    rows, token_ids, paths = outcome.rows, outcome.token_ids, outcome.paths
    if not len(rows) == len(token_ids) == len(paths):
        return f"{len(rows)} rows, {len(token_ids)} token ids and {len(paths)} paths"
    if len(rows) > search.width:
        return f"{len(rows)} rows, more than its width {search.width}"
    if wrong := [row for row in rows if not 0 <= row < num_rows]:
        return f"row {wrong[0]!r} of {num_rows}"
    if wrong := [token_id for token_id in token_ids if not 0 <= token_id < num_ids]:
        return f"token id {wrong[0]!r} of {num_ids}"
    if outcome.done and rows:
        return "live rows, although it is done"
    if outcome.done and not 1 <= len(outcome.best) <= search.num_return:
        return f"{len(outcome.best)} results, not 1 to {search.num_return}"
    return "" if outcome.done or rows else "no live row, although it is not done"
