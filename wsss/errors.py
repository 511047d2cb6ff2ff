"""The error that is shown to users."""

from collections.abc import Sequence

SHOWN = 10  # an error names so many places and counts the rest
LINE = "\n  "  # between files, which are listed one per line


class UserError(Exception):
    """What went wrong, where, what was expected and how to fix it: ``str(error)`` is one to three lines."""


class MaskError(UserError):
    """Masks that cannot be used, where nothing else is wrong: what needs no masks can go on."""


def listed(items: Sequence[str], separator: str = "; ") -> str:
    """Return the first ten ``items`` in one line and, where there are more, the number of the rest."""
    rest = len(items) - SHOWN
    return separator.join(items[:SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")


def plural(number: int, noun: str) -> str:
    """Return e.g. ``1 image`` or ``3 images``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
