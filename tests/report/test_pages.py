"""The parameter check refuses what papermill would only warn of; budgets,
verdicts and glue say what they mean."""

import nbformat
import pytest

from b2g.errors import B2GError
from b2g.report import pages

KNOWN = dict(budget=pages.BUDGETS, seed=int, rate=float)
GOOD = dict(budget="try", seed=0, rate=0.5)


def test_known_parameters_of_the_right_kind_pass():
    pages.check_parameters(GOOD, **KNOWN)
    pages.check_parameters(GOOD | {"rate": 1}, **KNOWN)  # a whole number is a float too


@pytest.mark.parametrize(
    "change, word",
    [
        ({"budget": "fulll"}, "'fulll'"),
        ({"seed": 0.5}, "'seed'"),
        ({"seed": True}, "'seed'"),
        ({"rate": "0.5"}, "'rate'"),
        ({"In": ["", "budget = 'try'", "# Parameters\nbugdet = 'full'\n"]}, "'bugdet'"),
        ({"In": ["", "# Parameters\nseed = 1\nsteps = 5\n"]}, "'steps'"),
    ],
)
def test_what_the_notebook_does_not_take_is_named(change, word):
    with pytest.raises(B2GError, match=word):
        pages.check_parameters(GOOD | change, **KNOWN)


def test_a_missing_parameter_is_named():
    with pytest.raises(B2GError, match="'rate'"):
        pages.check_parameters({"budget": "try", "seed": 0}, **KNOWN)


def test_names_of_other_cells_are_not_parameters():
    pages.check_parameters(GOOD | {"In": ["", "helper = 3", "# Parameters\nseed = 1\n"]}, **KNOWN)


def test_papermill_itself_is_caught(tmp_path):
    """The check reads papermill's injected cell, so it is tried on papermill, not on a copy of its habits."""
    import papermill

    cell = nbformat.v4.new_code_cell
    parameters = cell("budget = 'try'")
    parameters.metadata["tags"] = ["parameters"]
    check = "from b2g.report import pages\npages.check_parameters(globals(), budget=pages.BUDGETS)"
    metadata = {"language_info": {"name": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[parameters, cell(check)], metadata=metadata)
    nbformat.write(notebook, tmp_path / "in.ipynb")
    run = dict(kernel_name="python3", progress_bar=False, extra_arguments=["--log-level=ERROR"])
    out = tmp_path / "out.ipynb"
    with pytest.raises(papermill.PapermillExecutionError, match="no parameter 'bugdet'"):
        papermill.execute_notebook(tmp_path / "in.ipynb", out, {"bugdet": "smoke"}, **run)


def test_the_environment_overrides_the_budget(monkeypatch):
    monkeypatch.delenv("B2G_BUDGET", raising=False)
    assert pages.budget("full").pick(1, 2, 3) == 3
    monkeypatch.setenv("B2G_BUDGET", "smoke")
    assert pages.budget("full").pick(1, 2, 3) == 1
    monkeypatch.setenv("B2G_BUDGET", "tiny")
    with pytest.raises(B2GError, match="'tiny'"):
        pages.budget()


def test_a_verdict_reads_as_words_and_as_a_badge():
    good, bad = pages.Verdict("1 < 2", True, "by 1"), pages.Verdict("2 < 1", False)
    assert repr(good) == "holds: 1 < 2 (by 1)" and repr(bad) == "does not hold: 2 < 1"
    assert "1 &lt; 2" in good._repr_html_() and ">holds<" in good._repr_html_()
    assert ">does not hold<" in bad._repr_html_()
    assert repr(pages.Verdict("3 < 4", None)) == "not judged: 3 < 4"


def test_only_a_verdict_that_must_hold_raises(capsys):
    assert pages.verdict("two is even", 2 % 2 == 0) is True
    assert pages.verdict("three is even", False) is False
    assert pages.verdict("four is even", None, must_hold=True) is None
    with pytest.raises(B2GError, match=r"three is even \(rest 1\)"):
        pages.verdict("three is even", False, "rest 1", must_hold=True)
    assert "does not hold: three is even" in capsys.readouterr().out


def test_glue_takes_formatted_text_only():
    with pytest.raises(B2GError, match="float"):
        pages.glue("gain", 1.5)
