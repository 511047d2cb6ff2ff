"""The error that is shown to users."""

from collections.abc import Sequence

SHOWN = 10  # an error names so many places and counts the rest
LINE = "\n  "  # between files, which are listed one per line


class UserError(Exception):
    """What went wrong, where, what was expected and how to fix it: ``str(error)`` is one to three lines.

    Attributes:
        items: all of a list of which the message holds the first ten; empty if there is none.
    """

    items: tuple[str, ...] = ()


class MaskError(UserError):
    """Masks that cannot be used, where nothing else is wrong: what needs no masks can go on."""


def listed(items: Sequence[str], separator: str = "; ") -> str:
    """Return the first ten ``items`` in one line and, where there are more, the number of the rest."""
    rest = len(items) - SHOWN
    return separator.join(items[:SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")


def listing_error(
    what: str, items: Sequence[str], remedy: str = "", *, kind: type[UserError] = UserError
) -> UserError:
    """Return an error about many places: ``what``, ten of them a line each, the remedy; it holds all of them."""
    error = kind(f"{what}:{LINE}{listed(items, LINE)}" + (f"\n{remedy}" if remedy else ""))
    error.items = tuple(items)
    return error


def plural(number: int, noun: str) -> str:
    """Return e.g. ``1 image`` or ``3 images``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
