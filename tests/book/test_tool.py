"""Only what changed is executed, and nothing unfinished ever counts as done."""

import copy

import cells
import nbformat
import notebooks as tool
import pytest

cell = nbformat.v4.new_code_cell
prose = nbformat.v4.new_markdown_cell


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A book of its own: one notebook, listed, and nowhere near the real one."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text("format: jb-book\nroot: one\n")
    for name, value in dict(BOOK="book", BUILD="_build", EXECUTED="_build/executed").items():
        monkeypatch.setattr(tool, name, tmp_path / value)
    return tmp_path


def write(folder, *cells):
    path = folder / "book" / "one.ipynb"
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells), metadata=metadata), path)
    return path


def test_prose_does_not_change_the_key_and_code_does():
    def key(*parts):
        return cells.key_of(nbformat.v4.new_notebook(cells=list(parts)), "around")

    setup = cell("install()", metadata={"tags": ["setup"]})
    one = key(prose("a"), cell("x = 1"))
    assert one == key(prose("b"), prose("c"), cell("x = 1"))
    assert one == key(setup, cell("x = 1"))  # the address of the repository changes no result
    assert one != key(prose("a"), cell("x = 2"))
    assert key(cell("x"), cell("y")) != key(cell("x\ny"))
    assert one != cells.key_of(nbformat.v4.new_notebook(cells=[cell("x = 1")]), "elsewhere")


def test_circumstances_follow_the_package_and_the_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    (tmp_path / "requirements.txt").write_text("torch==2\n")
    (tmp_path / "b2g").mkdir()
    module = tmp_path / "b2g" / "masks.py"
    module.write_text("1")
    monkeypatch.setenv("B2G_BUDGET", "smoke")
    before = tool.circumstances()
    assert tool.circumstances() == before
    monkeypatch.setenv("B2G_BUDGET", "try")
    other_budget = tool.circumstances()
    module.write_text("2")
    assert len({before, other_budget, tool.circumstances()}) == 3


def test_execute_then_stage_then_refresh(folder, capsys):
    write(folder, prose("# One"), cell("print(6 * 7)"))
    assert tool.execute([], jobs=1) == 0
    assert tool.execute([], jobs=1) == 0
    assert "1 current, 0 to run" in capsys.readouterr().out
    path = write(folder, prose("# Another title"), cell("print(6 * 7)"))
    tool.stage()
    staged = nbformat.read(folder / "_build" / "book" / "one.ipynb", as_version=4)
    assert staged.cells[0].source == "# Another title" and staged.cells[1].outputs[0].text == "42\n"
    tool.refresh([])
    tracked = nbformat.read(path, as_version=4)
    assert tracked.cells[1].outputs[0].text == "42\n" and "b2g_key" not in tracked.metadata
    before = path.read_bytes()
    tool.refresh([])
    assert path.read_bytes() == before


def test_a_failing_cell_is_named_and_leaves_nothing_done(folder, capsys):
    write(folder, prose("# One"), cell("x = 1"), cell("x / 0"))
    assert tool.execute([], jobs=1) == 1
    assert "book/one.ipynb, cell 3 of the file: ZeroDivisionError" in capsys.readouterr().err
    assert not list(folder.rglob("_build/executed/*"))
    with pytest.raises(SystemExit, match="make book"):
        tool.stage()


def test_half_a_notebook_does_not_count(folder):
    path = write(folder, cell("1"))
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["b2g_key"] = cells.key_of(notebook, "around")
    whole = nbformat.writes(notebook)
    tool.EXECUTED.mkdir(parents=True)
    target = tool.EXECUTED / path.name
    target.write_text(whole)
    assert tool.executed_copy(path, "around") is not None
    for length in (0, 1, len(whole) // 2, len(whole) - 2):
        target.write_text(whole[:length])
        assert tool.executed_copy(path, "around") is None


def test_normalised_drops_bars_times_and_names_of_machines():
    bar = nbformat.v4.new_output("display_data", {cells.WIDGET: {}, "text/plain": "0%"})
    kept = nbformat.v4.new_output("display_data", {"text/plain": "a figure"})
    code = cell("x", outputs=[bar, kept], execution_count=7, metadata={"tags": ["a"], "papermill": {"duration": 1}})
    notebook = cells.normalised(nbformat.v4.new_notebook(cells=[code], metadata={"papermill": {}, "widgets": {}}))
    [code] = notebook.cells
    assert code.outputs == [kept] and code.execution_count == 1 and code.metadata == {"tags": ["a"]}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_normalised_makes_slowly_printed_text_one_again():
    bar = nbformat.v4.new_output("display_data", {cells.WIDGET: {}})
    said = [nbformat.v4.new_output("stream", name=name, text=text)
            for name, text in [("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n"), ("stdout", "d\n")]]
    figure = nbformat.v4.new_output("display_data", {"text/plain": "a figure"})
    outputs = [said[0], bar, said[1], said[2], said[3], figure, said[3]]
    [code] = cells.normalised(nbformat.v4.new_notebook(cells=[cell("x", outputs=copy.deepcopy(outputs))])).cells
    assert [out.get("text", "figure") for out in code.outputs] == ["a\nb\n", "c\n", "d\n", "figure", "d\n"]


@pytest.mark.parametrize("address", ["", "https://github.com/owner/name"])
def test_the_setup_cell_follows_the_one_address(tmp_path, address):
    settings = tmp_path / "_config.yml"
    settings.write_text(f'repository:\n  url: "{address}"\n  branch: main\n')
    source = cells.setup_source(settings)
    assert ("%pip install" in source) == bool(address)
    assert (f"{address}/archive/refs/heads/main.zip" in source) == bool(address)
    if not address:
        compile(source, "setup", "exec")


def test_a_listed_page_that_is_missing_is_named(folder):
    (folder / "book" / "_toc.yml").write_text("format: jb-book\nroot: absent\n")
    with pytest.raises(SystemExit, match="absent"):
        tool.documents()
