"""What the book's pages need besides Sphinx: MathJax from the build, and buttons that never lie."""

import importlib.util
from pathlib import Path

from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset

# The few files of MathJax 3 that a page can ask for: the processor, its fonts, its TeX extensions.
MATHJAX = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")


def mathjax_folder():
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None:
        raise ExtensionError("MathJax is missing: pip install sphinx-mathjax-offline")
    return Path(spec.origin).parent / "static" / "mathjax"


def copy_mathjax(app, error):
    if error is None and app.builder.format == "html":
        for name in MATHJAX:
            target = Path(app.outdir, "_static", "mathjax", name)
            copy_asset(str(mathjax_folder() / name), str(target.parent if target.suffix else target))


def settle(app, config):
    """Take MathJax from the build; derive every button from the one public address, or make none."""
    config.mathjax_path = "mathjax/tex-chtml.js"
    config.html_context.setdefault("default_mode", "auto")
    options = config.html_theme_options
    known = bool(options.get("repository_url"))
    options["use_repository_button"] = options["use_issues_button"] = known
    if not known:
        options["launch_buttons"] = {}


def drop_thebe(app, pagename, templatename, context, doctree):
    """Leave out the scripts of Thebe, which would run cells on a server elsewhere; the book has none."""
    context["script_files"] = [
        script for script in context.get("script_files", ())
        if "thebe" not in f"{getattr(script, 'filename', script)}{getattr(script, 'attributes', '')}".lower()
    ]


def setup(app):
    app.connect("config-inited", settle, priority=900)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.add_css_file("book.css")
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
