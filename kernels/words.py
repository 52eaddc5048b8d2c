"""Command lines as pip and conda read them: ``--option=VALUE``, ``-rFILE``, ``-qU``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence


def options(words: Sequence[str], with_value: Collection[str]) -> Iterator[tuple[str, str]]:
    """The options and their values, in order; what is no option as the value of ``""``.

    ``with_value`` are those that take the next word where none is written with them.
    """
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-") or word == "-":
            yield "", word
            continue
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            if option in with_value and not equals:
                value = left.pop(0) if left else ""
            yield option, value
            continue
        for number, letter in enumerate(word[1:], 2):
            option = f"-{letter}"
            if option in with_value:
                yield option, word[number:].removeprefix("=") or (left.pop(0) if left else "")
                break
            yield option, ""
