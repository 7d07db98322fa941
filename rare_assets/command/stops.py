"""Stops of a command, by Ctrl-C or by a service manager: held where one would break off what must be whole."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# How a terminal and a service manager end a command.
STOPS = (signal.SIGINT, signal.SIGTERM)


def interrupt(number: int, _: FrameType | None) -> None:
    """Handle a stop as Ctrl-C is: raise KeyboardInterrupt, with the signal's number."""
    raise KeyboardInterrupt(number)


@contextmanager
def stops_held() -> Iterator[None]:
    """Hold an interrupt or a stop until the end of the block: it is acted on then, and never lost.

    Processes started in here begin with both held, lest they die before they can handle them.
    """
    came: list[int] = []
    # Another thread may take a signal that this one holds: Python has the handler run in here all the same.
    with stop_handler(signal.SIG_BLOCK, lambda number, _: came.append(number)):
        yield
    for number in came:
        signal.raise_signal(number)


@contextmanager
def stop_handler(mask: int, handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Have `handler` called at a stop within the block, and threads and processes begin with `mask`."""
    previous = {number: signal.signal(number, handler) for number in STOPS}
    held = signal.pthread_sigmask(mask, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        for number, of_before in previous.items():
            signal.signal(number, of_before)


def silence_pool() -> None:
    """Have a stop within a call of the database told as one: its pool would print a stack beside it."""
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
