"""A table of the paper as HTML, CSV and LaTeX, all from one `b2g.report.tables.Table`."""

import csv
import html
import io
from collections import Counter

from b2g import datasets
from b2g.report.cells import convention
from b2g.report.columns import GROUPS, group_of
from b2g.report.markup import Lines, Mark, table

SSIM = {"ssim_2d": "2-D", "ssim_matlab_volume": "volume"}
STYLE = """<style>
.b2g-paper-table td div,.b2g-paper-table .b2g-table .b2g-missing{white-space:nowrap}
.b2g-paper-table tbody th{min-width:6.5em}
</style>"""
CSV_COLUMNS = ("table", "pictures", "dataset", "crop", "noise", "level", "column", "beyond_the_paper",
               "metric", "printed", "ours", "low", "high", "n", "of", "difference", "other_metric", "other",
               "failed", "not_run", "estimated_cpu_seconds", "circumstances")  # fmt: skip


def to_html(content):
    """The table with its notes, and its CSV and LaTeX to be opened and copied."""
    groups = Counter(map(group_of, content.columns))
    header = ["", *(column.title for column in content.columns)]
    shown = table(header, list(_lines(content)), caption(content),
                  groups=[("", 1), *((name, groups[name]) for name in GROUPS if groups[name])])
    notes = _list([*runs_of(content), *failures_of(content)])
    protocol = _list(protocol_of(content))
    notes += f"<details><summary>Protocol, data sets and columns</summary>{protocol}</details>"
    copies = "".join(
        f"<details><summary>{name}, to copy</summary>"
        f'<pre style="max-height:20em;overflow:auto;font-size:.8em">{html.escape(text)}</pre></details>'
        for name, text in (("CSV", to_csv(content)), ("LaTeX", to_latex(content))))
    return (f'{STYLE}<div class="b2g-paper-table">{shown._repr_html_()}</div>'
            f"{notes}{copies}")


def _list(notes):
    return f'<ul class="b2g-notes">{"".join(f"<li>{html.escape(note)}</li>" for note in notes)}</ul>'


def caption(content):
    """What the numbers of the table are, in a sentence."""
    unit = "PSNR in dB" if content.metric == "psnr" else "SSIM"
    return (f"Table {content.number} of the paper, {unit}. In each cell: the printed value; in bold, "
            "the mean measured here, with its 95 % interval; their difference; how many of the set's "
            "pictures. In italics: the mean of a part of the set, and what was not run.")


def notes_of(content):
    """All that must be known to read the table, as sentences."""
    return [*protocol_of(content), *runs_of(content), *failures_of(content)]


def protocol_of(content):
    """How noise, answers and scores were treated; what the data sets and the columns are."""
    yield "The noisy pictures are not clipped. Answers are clipped to [0, 1] and not rounded."
    if content.metric == "ssim":
        yield ("SSIM: 2-D is the usual measure, channel by channel; volume is what MATLAB's ssim gives "
               "for a colour picture handed to it as an array of three dimensions; most printed values of "
               "Set9 are of that kind.")
    yield ("An interval says how far the mean would move with other pictures of the kind (percentile "
           "bootstrap over pictures). A difference is given only where ours is the mean over the whole set.")
    yield "Where nothing was run, the time is an estimate for one CPU thread, from other runs of the method."
    for name in dict.fromkeys(row.dataset for row in content.rows):
        yield from (f"{name}: {known.title}." for known in datasets.describe() if known.dataset == name)
        if not any(row.names for row in content.rows if row.dataset == name):
            yield f"{name}: these pictures are not at hand, so the printed values stand alone."
    yield from (f"{column.title}: {column.note}." for column in content.columns if column.note)


def runs_of(content):
    """How many runs there are, and where they were made."""
    yield f"Runs: {content.devices or 'none yet'}. A cell whose runs differ in device or precision says so."


def failures_of(content):
    """Every failed run with its reason."""
    for (row, column), cell in content.cells.items():
        yield from (f"Failed: {column.title}, {row.title}: {why}." for why in cell.failed)


def _lines(content):
    for row in content.rows:
        title = row.title
        if row.crop:
            title += f", n = {len(row.names)}"
            title += "" if row.beside else " (printed values are for whole pictures)"
        yield [title, *(_cell(content, row, column) for column in content.columns)]


def _cell(content, row, column):
    cell = content.cells[row, column]
    first, *other = convention(content.metric, row.dataset)
    lines = [f"printed {cell.text}"] if cell.text else []
    if cell.ours.n:
        lines += _measured(cell, cell.ours, first)
        if other and cell.also.n and abs(cell.also.mean - cell.ours.mean) >= 0.0005:
            lines += _measured(cell, cell.also, other[0])
        lines += _words(cell, content.metric)
    if cell.missing and not row.crop and cell.runnable:
        lines.append(Mark(_wanted(cell), "missing"))
    if cell.failed:
        lines.append(Mark(f"{sum(int(why.split()[0]) for why in cell.failed)} failed", "doubtful",
                          "; ".join(cell.failed)))
    return Lines(lines) if lines else Mark("–", "missing")


def _measured(cell, found, metric):
    """The mean with the SSIM's convention, and its interval on the next line; bold only for a whole set."""
    kind, digits = f"{SSIM[metric]} " if metric in SSIM else "", _digits(metric)
    mean = f"{kind}{found.mean:.{digits}f}"
    yield Mark(mean, "best") if cell.whole else Mark(f"part: {mean}", "missing")
    if found.low is not None:
        yield f"{found.low:.{digits}f} to {found.high:.{digits}f}"


def _words(cell, metric):
    if cell.difference is not None:
        yield f"{cell.difference:+.{_digits(metric)}f}".replace("-", "−")
    yield f"{cell.ours.n} of {cell.total}"
    if "," in cell.circumstances:
        yield from cell.circumstances.split(", ")


def _wanted(cell):
    """What a cell lacks and what it would cost; the estimate is marked as one."""
    from b2g.runs.cost import spoken

    what = "not run" if not cell.ours.n else f"{cell.missing} not run"
    return what + (f", ≈ {spoken(cell.seconds)}" if cell.seconds else "")


def _digits(metric):
    return 2 if metric.startswith("psnr") else 3


def to_csv(content):
    """One line for each cell, with every number the other layouts show, unrounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for (row, column), cell in content.cells.items():
        first, *other = convention(content.metric, row.dataset)
        pictures = "whole" if not row.crop else "central crops" if "+" not in row.crop else "crops"
        writer.writerow([
            content.number, pictures, row.dataset, row.crop, row.noise, row.level, column.title,
            int(column.paper is None), first, cell.text, _number(cell.ours.mean), _number(cell.ours.low),
            _number(cell.ours.high), cell.ours.n, cell.total, _number(cell.difference), *(other or [""]),
            _number(cell.also.mean), "; ".join(cell.failed), cell.missing, _number(cell.seconds),
            cell.circumstances])
    return stream.getvalue()


def _number(value):
    return "" if value is None else f"{value:.6g}"


def to_latex(content):
    r"""A ``tabular`` for the packages booktabs and makecell: printed above, ours below, n beside it."""
    lines = [r"% \usepackage{booktabs,makecell}", rf"\begin{{tabular}}{{l{'c' * len(content.columns)}}}",
             r"\toprule", " & ".join(["", *(latex(column.title) for column in content.columns)]) + r" \\",
             r"\midrule"]
    for row in content.rows:
        title = latex(row.title) + (f" ($n={len(row.names)}$)" if row.crop else "")
        cells = (_latex_cell(content.cells[row, column], content.metric) for column in content.columns)
        lines.append(" & ".join([title, *cells]) + r" \\")
    notes = [caption(content), *notes_of(content)]
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {latex(note)}" for note in notes)]
    return "\n".join(lines) + "\n"


def _latex_cell(cell, metric):
    digits, ours = _digits(metric), "--"
    if cell.ours.n:
        part = "" if cell.whole else rf"\,({cell.ours.n}/{cell.total})"
        ours = f"{cell.ours.mean:.{digits}f}{part}"
    return rf"\makecell{{{cell.text or '--'} \\ {ours}}}"


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "σ": r"$\sigma$",
          "λ": r"$\lambda$", "×": r"$\times$", "–": "--", "−": "$-$", "\N{NO-BREAK SPACE}": "~"}
_LATEX |= {character: "\\" + character for character in "&%$#_{}"}


def latex(text):
    """Text with LaTeX's special characters escaped, and signs that plain fonts lack as mathematics."""
    return "".join(_LATEX.get(character, character) for character in text)
