"""Tables as outputs: numbers to the right, marks without colour, a scroll of their own on a phone."""

import html
import re
from dataclasses import dataclass

from b2g.errors import B2GError
from b2g.report.figures import Shown

KINDS = ("best", "second", "doubtful", "missing")
# The colours are the page's own, or translucent, so that light and dark pages need no second set.
STYLE = """<style>
.b2g-scroll{overflow-x:auto;max-width:100%;margin:.8em 0;container-type:inline-size}
.b2g-table{border-collapse:collapse;font-size:.9em;color:inherit;background:transparent;margin:0}
.b2g-table caption{caption-side:top;text-align:left;font-size:1em;color:inherit;padding:.2em 0 .5em}
.b2g-table caption span{display:block;position:sticky;left:0;max-width:100cqi}
.b2g-table th,.b2g-table td{border:0;border-bottom:1px solid rgba(128,128,128,.35);padding:.3em .6em;
text-align:left;vertical-align:top;color:inherit;background:transparent}
.b2g-table thead th{border-bottom:2px solid rgba(128,128,128,.7);vertical-align:bottom}
.b2g-table tbody th{font-weight:400}
.b2g-table .b2g-group{text-align:left;border-bottom:1px solid rgba(128,128,128,.35)}
.b2g-table tr>th:first-child{position:sticky;left:0;z-index:1;min-width:6.5em;max-width:10.5em;
background:var(--pst-color-background,var(--jp-layout-color0,var(--colab-primary-surface-color,Canvas)))}
.b2g-table .b2g-number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.b2g-table .b2g-best{font-weight:700}
.b2g-table .b2g-second{text-decoration:underline;text-underline-offset:.2em}
.b2g-table .b2g-doubtful{background:rgba(230,159,0,.25);text-decoration:underline dotted;
text-underline-offset:.2em;border-radius:3px;padding:0 .2em}
.b2g-table .b2g-missing{opacity:.7;font-style:italic;white-space:normal}
.b2g-notes{font-size:.85em;margin:.3em 0}
</style>"""


@dataclass(frozen=True)
class Mark:
    """A cell's text with its rank or state, one of `KINDS`; `why` shows when the cell is pointed at."""

    text: str
    kind: str
    why: str = ""

    def __post_init__(self):
        if self.kind not in KINDS:
            kinds = ", ".join(map(repr, KINDS))
            raise B2GError(f"A cell is marked {self.kind!r}, but must be one of {kinds}.")

    def __str__(self):
        return self.text


class Lines(tuple):
    """A cell of several lines, each text or a `Mark`."""

    def __str__(self):
        return "; ".join(map(str, self))


def table(header, rows, caption, notes="", groups=()):
    """A table as the output of a cell.

    Parameters
    ----------
    header : sequence of str
        One word or two for each column.
    rows : sequence of sequences
        Cells: text, `Mark`, `Lines` or None (an empty cell), one for each column; format numbers first. The
        first column heads its row and stays in sight when the table is scrolled. A column whose cells all
        begin as numbers do is set to the right.
    caption : str
        One sentence above the table; screen readers announce it.
    notes : str
        Printed under the table, and not scrolled with it.
    groups : sequence of (str, int)
        Words above the header, each over so many columns.

    Returns
    -------
    Shown
        HTML for pages, plain columns elsewhere.

    Raises
    ------
    B2GError
        If a row is longer or shorter than the header, a cell is a bare number, or the caption is missing.

    Examples
    --------
    >>> table(("method", "dB"), [("bm3d", "31.70")], "Set9")
    [Set9]
    method  dB
    bm3d    31.70
    """
    header, rows = list(header), [list(row) for row in rows]
    if not isinstance(caption, str) or not caption.strip():
        raise B2GError("A table needs a caption: one sentence that says what its numbers are.")
    for row in rows:
        _check_row(row, header)
    right = [_is_numeric([row[column] for row in rows]) for column in range(len(header))]
    label = html.escape(caption.strip())
    under = f'<p class="b2g-notes">{html.escape(notes)}</p>' if notes else ""
    markup = (f'{STYLE}<div class="b2g-scroll" role="region" tabindex="0" aria-label="{label}">'
              f'<table class="b2g-table"><caption><span>{label}</span></caption>'
              f"<thead>{_groups(groups)}<tr>{_head(header, right)}</tr></thead>"
              f"<tbody>{''.join(_row(row, right) for row in rows)}</tbody></table></div>{under}")
    return _Table(markup, caption.strip(), _columns(header, rows), notes)


class _Table(Shown):
    def __init__(self, markup, caption, columns, notes):
        super().__init__(markup, caption)
        self.columns, self.notes = columns, notes

    def __repr__(self):
        return "\n".join(part for part in (super().__repr__(), self.columns, self.notes) if part)


def _check_row(row, header):
    if len(row) != len(header):
        words = [str(cell) for cell in row]
        raise B2GError(f"The row {words} has {len(row)} cells, the header {len(header)}.")
    for cell in row:
        if not (cell is None or isinstance(cell, (str, Mark, Lines))):
            raise B2GError(f"A cell of a table is text, such as f'{{value:.2f}}', not {cell!r}.")


def _is_numeric(cells):
    words = [str(cell) for cell in cells if cell is not None and getattr(cell, "kind", "") != "missing"]
    empty = ("", "–", "-")
    return any(words) and all(word in empty or word.lstrip("+-−±<>≤≥ ")[:1].isdigit() for word in words)


def _head(header, right):
    return "".join(f'<th scope="col"{_class(number)}>{html.escape(word)}</th>'
                   for word, number in zip(header, right))


def _groups(groups):
    cells = "".join(f'<th scope="colgroup" class="b2g-group" colspan="{span}">{html.escape(words)}</th>'
                    for words, span in groups)
    return f"<tr>{cells}</tr>" if cells else ""


def _row(row, right):
    first, *others = (_content(cell) for cell in row)
    first = _breakable(first)
    cells = "".join(f"<td{_class(number)}>{cell}</td>" for cell, number in zip(others, right[1:]))
    return f'<tr><th scope="row"{_class(right[0])}>{first}</th>{cells}</tr>'


def _breakable(markup):
    """Lets a long name break after its joints, "/", "_" and "+", but in no tag."""
    return re.sub(r"(<[^>]*>)|([/_+])(?=\w)", lambda found: found[1] or found[2] + "<wbr>", markup)


def _class(number):
    return ' class="b2g-number"' if number else ""


def _content(cell):
    if isinstance(cell, Lines):
        return "".join(f"<div>{_content(line)}</div>" for line in cell)
    if not isinstance(cell, Mark):
        return html.escape(cell or "")
    why = f' title="{html.escape(cell.why)}"' if cell.why else ""
    return f'<span class="b2g-{cell.kind}"{why}>{html.escape(cell.text)}</span>'


def _columns(header, rows):
    lines = [[str(cell or "") for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    padded = (zip(line, widths) for line in lines)
    return "\n".join("  ".join(word.ljust(width) for word, width in line).rstrip() for line in padded)
