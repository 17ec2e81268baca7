"""An argument parser whose mistakes are one line that says what would be right."""

from __future__ import annotations

import argparse
import difflib
import itertools
import math
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn


class UsageError(Exception):
    """The command line cannot be understood; the message is for the user."""


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print its usage and exit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)
        self._words: list[str] = []  # that are being parsed

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What argparse makes of the words; a misspelt option is named before one that is missing for it.

        Raises:
            UsageError: the words cannot be understood.
        """
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raises UsageError with the message and, for a misspelt word, the nearest right one."""
        raise UsageError(self._teach(message))

    def _teach(self, message: str) -> str:
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        if unknown:
            return f"unknown option {unknown[1]}{_nearest(unknown[1], self._options())}"
        if message.startswith("the following arguments are required"):
            misspelt = next((word for word in self._given_options() if word not in self._options()), None)
            if misspelt:
                return f"unknown option {misspelt}{_nearest(misspelt, self._options())}"
        verb = re.match(r"argument VERB: invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if verb:
            names = re.findall(r"[\w-]+", verb[2])
            return f"unknown verb {verb[1]!r}{_nearest(verb[1], names)}; known: {', '.join(names)}"
        return message

    def _given_options(self) -> list[str]:
        words = itertools.takewhile(lambda word: word != "--", self._words)
        return [word.partition("=")[0] for word in words if word.startswith("--")]

    def _options(self) -> list[str]:
        """Every option, those of the verbs included: argparse reports an unknown one where it knows no verb."""
        options = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                options += [name for parser in action.choices.values() for name in parser._options()]
        return options


def _nearest(word: str, names: list[str]) -> str:
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _reader(convert: Callable[[str], Any], accepts: Callable[[Any], bool], wanted: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}") from None
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text}")
        return value

    return read


def _clock_time(text: str) -> Any:
    """Seconds of ``90``, ``1:30`` or ``0:01:30.5``."""
    hours_to_seconds = [float(part) for part in text.split(":")]
    if len(hours_to_seconds) > 3 or any(part < 0 for part in hours_to_seconds):
        raise ValueError(text)
    return sum(part * 60**power for power, part in enumerate(reversed(hours_to_seconds)))


positive_int = _reader(int, lambda value: value >= 1, "a whole number above 0")
count_int = _reader(int, lambda value: value >= 0, "a whole number, 0 or more")
positive_number = _reader(float, lambda value: math.isfinite(value) and value > 0, "a number above 0")
clock_time = _reader(_clock_time, math.isfinite, "seconds or [h:]mm:ss")
