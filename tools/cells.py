"""What a notebook of the book is made of: its key, its normal form, and its first cell."""

import hashlib
import json

import nbformat
import yaml

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT_METADATA = ("tags", "mystnb")
SETUP = """# On Colab this installs the package; where b2g is at hand, it does nothing.
import importlib.util

if importlib.util.find_spec("b2g") is None:
    {install}"""
INSTALL = '%pip install -q "b2g @ {url}/archive/refs/heads/{branch}.zip"'
REFUSE = 'raise ModuleNotFoundError("b2g is not installed: make book, then use its .venv for this notebook.")'


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def has_tag(cell, tag):
    return tag in cell.metadata.get("tags", ())


def key_of(notebook, around):
    """Key of a notebook: its code cells, in order, and the circumstances `around`; not the setup cell."""
    sources = [cell.source for cell in code_cells(notebook) if not has_tag(cell, "setup")]
    return hashlib.sha256(json.dumps([around, sources]).encode()).hexdigest()


def normalised(notebook):
    """The notebook without times, machine names, widget views and other people's metadata."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: cell.metadata[k] for k in KEPT_METADATA if k in cell.metadata})
    for number, cell in enumerate(code_cells(notebook), 1):
        # A progress bar is of no use once the work is done, and its script would come from outside.
        cell.outputs = joined(out for out in cell.outputs if WIDGET not in out.get("data", {}))
        cell.execution_count = number
        for out in cell.outputs:
            if "execution_count" in out:
                out.execution_count = number
    return notebook


def joined(outputs):
    """The outputs, with text that a slow cell printed in several goes made one again."""
    whole = []
    for out in outputs:
        last = whole[-1] if whole else {}
        if out["output_type"] == "stream" == last.get("output_type") and out["name"] == last["name"]:
            last["text"] += out["text"]
        else:
            whole.append(out)
    return whole


def setup_source(settings):
    """The first cell of every notebook, made from the one public address, in the file _config.yml."""
    repository = yaml.safe_load(settings.read_text())["repository"]
    return SETUP.format(install=INSTALL.format(**repository) if repository["url"] else REFUSE)
