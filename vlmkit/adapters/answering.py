"""A pipeline that answers whoever asks, from any thread: what waits is decoded side by side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from vlmkit.adapters.asking import Asked
from vlmkit.adapters.decoding import Answer, Decoder
from vlmkit.config.locate import located
from vlmkit.config.run import ResolvedRun
from vlmkit.engine import RowSpec
from vlmkit.errors import VlmkitError

_SETTLE_S = 0.02  # requests that come one after the other begin together


class _Row(NamedTuple):
    asked: Asked
    kind: str  # rows of one kind can stand in one batch
    future: Future[Answer]


class Answerer:
    """A loaded model with a thread of its own, in which everything runs that MLX does.

    A request joins the batch as soon as a row is free. Its tokens are those that it would have by
    itself: neither its neighbours nor the order of requests decide what is drawn.

    Args:
        run: which model to load.
        batch_size: rows in flight at most, at least 1.

    Raises:
        VlmkitError: the model cannot be loaded.

    Example:
        >>> from vlmkit.adapters.source import Source, load_source
        >>> run = load_source(Source(), {"max_tokens": 2})
        >>> answerer = Answerer(run, batch_size=2)
        >>> asked = Asked(({"role": "user", "content": "How many?"},), (), run)
        >>> [future.result().result.generation_tokens for future in answerer.ask([asked, asked])]
        [2, 2]
        >>> answerer.close()
    """

    def __init__(self, run: ResolvedRun, *, batch_size: int = 16) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise VlmkitError(f"batch_size is {batch_size!r}; it must be a whole number, 1 or more")
        self.batch_size = batch_size
        self._waiting: deque[_Row] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(run, ready), name="vlmkit", daemon=True
        )
        self._thread.start()
        ready.result()

    def ask(self, asked: Sequence[Asked]) -> list[Future[Answer]]:
        """Let requests wait for a row; each future has its answer, or why there is none.

        Raises:
            VlmkitError: the answerer is closed.
        """
        rows = [_Row(one, _kind(one), Future()) for one in asked]
        with self._changed:
            if self._is_closed:
                raise VlmkitError("this model is closed; get it again")
            self._waiting.extend(rows)
            self._changed.notify_all()
        return [row.future for row in rows]

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _serve(self, run: ResolvedRun, ready: Future[None]) -> None:
        try:
            with located(run.tree, ("model",)):
                decoder = Decoder(run.config, self.batch_size)
        except Exception as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        while (kind := self._next_kind()) is not None:
            self._answer(decoder, kind)

    def _next_kind(self) -> str | None:
        """Wait for requests, and until no more come; None where there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            seen = 0
            while seen < len(self._waiting) < self.batch_size and not self._is_closed:
                seen = len(self._waiting)
                self._changed.wait(_SETTLE_S)
            return self._waiting[0].kind if self._waiting else None

    def _take(self, kind: str) -> _Row | None:
        """The next request, if it is of this kind and still wanted."""
        with self._changed:
            while self._waiting and self._waiting[0].kind == kind:
                row = self._waiting.popleft()
                if row.future.set_running_or_notify_cancel():
                    return row
            return None

    def _answer(self, decoder: Decoder, kind: str) -> None:
        """Decode requests of one kind until none of them waits."""
        rows: dict[int, _Row] = {}
        arrivals = _Arrivals(self, decoder, kind, rows)
        try:
            first = next(arrivals, None)
            if first is None:
                return
            arrivals.put_back(first)
            for number, answer in decoder.decode(first.number, arrivals):
                rows.pop(number).future.set_result(answer)
        except Exception as error:
            # Whoever waits for a row has to hear of it; the thread goes on with the next ones.
            for row in rows.values():
                row.future.set_exception(error)


class _Arrivals(Iterator[RowSpec]):
    """Rows for the decode loop. ``next`` says that there is none now; later there may be one."""

    def __init__(
        self, answerer: Answerer, decoder: Decoder, kind: str, rows: dict[int, _Row]
    ) -> None:
        self._answerer, self._decoder, self._kind, self._rows = answerer, decoder, kind, rows
        self._number = 0
        self._returned: RowSpec | None = None

    def put_back(self, spec: RowSpec) -> None:
        """Give a row again at the next call."""
        self._returned = spec

    def __next__(self) -> RowSpec:
        if (returned := self._returned) is not None:
            self._returned = None
            return returned
        while (row := self._answerer._take(self._kind)) is not None:
            self._number += 1
            try:
                spec = self._decoder.prepare(row.asked, self._number)
            except Exception as error:  # whoever asked hears of it; the others go on
                row.future.set_exception(error)
                continue
            self._rows[self._number] = row
            return spec
        raise StopIteration


def _kind(asked: Asked) -> str:
    """What rows of one batch have in common."""
    config = asked.run.config
    contrast = None if config.contrast is None else config.contrast.model_dump_json()
    return f"{config.cache.model_dump_json()} {config.prefill.model_dump_json()} {contrast}"
