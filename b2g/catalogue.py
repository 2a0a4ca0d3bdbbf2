"""``b2g methods``: the methods by what they may use, or one method with its settings."""

from __future__ import annotations

import inspect
from dataclasses import fields

from b2g.errors import B2GError
from b2g.method import Method

_COLUMNS = ("name", "label", "cost", "default", "profiles", "source")


def add_command(commands) -> None:
    """The command's parser, added to argparse's ``commands``."""
    parser = commands.add_parser("methods", help="the methods, what each may use, its profiles and source")
    parser.add_argument("method", nargs="?", metavar="NAME", help="one method with its settings and profiles")


def run_methods(options) -> int:
    """``b2g methods [NAME]``."""
    from b2g.methods import METHODS

    if options.method is None:
        lines = listing(METHODS)
    elif options.method in METHODS:
        lines = described(METHODS[options.method])
    else:
        raise B2GError(f"method {options.method!r} is not known; choose one of {', '.join(METHODS)}.")
    print("\n".join(lines))
    return 0


def listing(methods: dict[str, type]) -> list[str]:
    """A head and one line a method, in columns; the methods of a label stand together, below a gap."""
    labels = list(dict.fromkeys(method.label for method in methods.values()))
    rows = [_row(method) for label in labels for method in methods.values() if method.label == label]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows)]
    lines, last = [_line(_COLUMNS, widths)], ""
    for row in rows:
        lines += ["", _line(row, widths)] if row[1] != last else [_line(row, widths)]
        last = row[1]
    return lines


def _row(method: type) -> tuple[str, ...]:
    profiles = ", ".join(method.profiles)
    return method.name, method.label, method.cost, method.default_profile, profiles, method.source


def _line(cells, widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()


def described(method: type) -> list[str]:
    """One method: its facts, settings with their defaults, what each profile changes, and the docstrings."""
    lines = [f"{method.name}  ({method.__name__})"]
    lines += [f"  {fact}: {getattr(method, fact)}" for fact in ("label", "cost", "source")]
    lines += ["", "settings (NAME = default):"]
    lines += [f"  {field.name} = {field.default!r}" for field in fields(method)] or ["  none"]
    lines += ["", "profiles, and what they change:"]
    for name, changes in method.profiles.items():
        told = ", ".join(f"{key}={value!r}" for key, value in changes.items()) or "nothing"
        lines.append(f"  {name}{' (the default)' if name == method.default_profile else ''}: {told}")
    classes = [base for base in method.__mro__ if issubclass(base, Method) and base is not Method]
    words = [*(base.__doc__ for base in classes), inspect.getmodule(method).__doc__]
    return lines + [line for text in words if text for line in ("", inspect.cleandoc(text))]
