"""The tracked notebooks: one parameters cell and its check, clean outputs, small files,
no trace of a machine."""

import json
import re

import cells
import nbformat
import notebooks as tool
import pytest

ROOT = tool.ROOT
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
LARGEST = 1_000_000  # bytes: what a reviewer still opens
MACHINE = re.compile(r"/(?:home|root|tmp|work|Users)/|/content/|[A-Z]:\\\\Users")

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_with_tag(notebook, tag):
    return [index for index, cell in enumerate(notebook.cells) if cells.has_tag(cell, tag)]


def test_it_is_listed(path):
    assert path in tool.documents()


def test_one_parameters_cell_followed_by_its_check(notebook, path):
    [index] = code_with_tag(notebook, "parameters")
    assert "budget = " in notebook.cells[index].source
    assert "check_parameters(globals()" in notebook.cells[index + 1].source


def test_the_setup_cell_is_the_current_one(notebook, path):
    [index] = code_with_tag(notebook, "setup")
    assert index < code_with_tag(notebook, "parameters")[0]
    assert notebook.cells[index].source == cells.setup_source(ROOT / "_config.yml"), "run: make notebooks"


def test_it_says_what_it_costs(notebook, path):
    opening = notebook.cells[0].source
    assert opening.startswith("# ")
    for tier in ("**Read**", "**Try**", "**Reproduce**"):
        assert tier in opening


def test_it_was_executed_without_complaint(notebook, path):
    outputs = [output for cell in cells.code_cells(notebook) for output in cell.outputs]
    assert outputs, "run: make notebooks"
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def test_it_is_normalised_and_small(notebook, path):
    text = path.read_text()
    assert len(text) < LARGEST
    assert json.loads(text) == json.loads(nbformat.writes(cells.normalised(notebook))), "run: make notebooks"


def test_it_names_no_machine(notebook, path):
    for cell in notebook.cells:
        words = re.sub(r"data:image/\w+;base64,[\w+/=]+", "", json.dumps(cell))
        assert not MACHINE.search(words), MACHINE.search(words)


def test_it_leaves_python_and_its_packages_alone(notebook, path):
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and index not in code_with_tag(notebook, "setup"):
            assert not re.search(r"^\s*[!%]|sys\.path", cell.source, re.MULTILINE)
