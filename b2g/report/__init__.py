"""Figures, comparators and verdicts for the book's pages. Everything here shows; nothing here computes.

    from b2g.report import compare, pages, plots, show, show_row, verdict
"""

from b2g.report import pages
from b2g.report.comparator import compare
from b2g.report.figures import plots, show, show_row
from b2g.report.pages import verdict

__all__ = ["compare", "pages", "plots", "show", "show_row", "verdict"]
