"""SIGTERM, Ctrl-C and a closed pipe: answered at once, and reported by the code 128 + signal.

Python runs a signal handler in the main thread, between two of its own instructions. While XLA
compiles or computes that can take many seconds. A second thread therefore waits for the signals'
numbers, and answers the user. This module imports nothing slow: it is used while others load.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Program:
    """Whether this process runs nothing but the run, so that a signal may end all of it."""

    own = False


def end(number: int) -> None:
    """Ends the process with one line, whatever its other threads are doing.

    What is on disk stays whole: a file appears by one rename, or is read up to its last line.
    """
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    line = f"stopped by {name}; a run keeps its last checkpoint\n"
    with contextlib.suppress(OSError):  # nobody may be there to read it
        os.write(2, ("\n" * os.isatty(2) + line).encode())
    os._exit(128 + number)


def end_program() -> Callable[[], None]:
    """From now on SIGTERM and Ctrl-C end the process with one line and without a traceback.

    Returns:
      A function that ends this.
    """
    if _Program.own or threading.current_thread() is not threading.main_thread():
        return lambda: None
    restore = _catch(_SIGNALS, end, lambda number: None)
    _Program.own = True

    def stop() -> None:
        _Program.own = False
        restore()

    return stop


@contextlib.contextmanager
def as_program() -> Iterator[None]:
    """Inside, `end_program` holds."""
    stop = end_program()
    try:
        yield
    finally:
        stop()


@contextlib.contextmanager
def without_reader() -> Iterator[None]:
    """Inside, the program ends quietly when nobody reads its output any more, as in `| head`."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        unread = [number for number in (1, 2) if _is_unread(number)]
        if not unread:  # another pipe, which is a fault
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in unread:  # Python writes what is left in its buffers when it exits
            os.dup2(nowhere, number)
        sys.exit(128 + signal.SIGPIPE)


def _is_unread(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


class StopRequest:
    """Whether someone asked the run to stop.

    The first signal is a request, which the caller looks at between its steps. A second Ctrl-C ends
    the program at once. In a session, which is worth more than the run, it raises KeyboardInterrupt
    as usual. A second SIGTERM changes nothing: schedulers repeat theirs.

    Attributes:
      number: the signal that asked, or 0.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        numbers: tuple[int, ...] = _SIGNALS,
        pass_on: int = 0,
    ):
        """Describes the request; `listen` begins.

        Args:
          say: tells the user one line; called from another thread.
          numbers: the signals to catch.
          pass_on: a signal that this process sends itself after the first one, or 0.
        """
        self.number = 0
        self._say, self._numbers, self._pass_on = say, numbers, pass_on
        self._heard: list[int] = []
        self._restore: Callable[[], None] | None = None

    def listen(self) -> None:
        """Catches the signals from now on; only the main thread can."""
        if not self._restore and threading.current_thread() is threading.main_thread():
            self._restore = _catch(self._numbers, self._answer, self._note)

    def close(self) -> None:
        """Leaves the signals to what caught them before."""
        if self._restore:
            self._restore()
            self._restore = None

    def exit_code(self) -> int:
        """128 + signal, so that `run && next` ends; SIGTERM where another process was asked."""
        return 128 + (self.number or signal.SIGTERM)

    def _answer(self, number: int) -> None:
        self._heard.append(number)
        if len(self._heard) == 1:
            again = " again" if number == signal.SIGINT else ""
            with contextlib.suppress(OSError):  # nobody may be there to read it
                self._say(
                    f"saving after this step or evaluation; press Ctrl-C{again} to stop at once"
                )
            if self._pass_on:
                os.kill(os.getpid(), self._pass_on)
        elif number == signal.SIGINT and _Program.own:
            end(number)

    def _note(self, number: int) -> None:
        if self.number and number == signal.SIGINT and not _Program.own:
            raise KeyboardInterrupt
        self.number = self.number or number


def _catch(
    numbers: tuple[int, ...], answer: Callable[[int], None], note: Callable[[int], None]
) -> Callable[[], None]:
    """A signal then calls `answer` in another thread at once, and `note` in the main thread.

    Returns:
      A function that brings back what was there before.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while found := os.read(reading, 1):
            if found[0] in numbers:
                answer(found[0])

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    pipe = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {n: signal.signal(n, lambda number, frame: note(number)) for n in numbers}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
        os.close(writing)  # the end of what the thread reads
        listener.join()
        os.close(reading)

    return restore
