"""The table of readings: each setting of the method once, each choice of the code,
and each reading a working method."""

import ast
from dataclasses import fields, replace

import cells
import nbformat
import notebooks as tool
import pytest

from b2g.errors import B2GError
from b2g.fit import SCHEDULES
from b2g.methods import B2G
from b2g.methods.b2g_choices import CHOICES as METHOD_CHOICES
from b2g.network import CHOICES as NETWORK_CHOICES

CHOICES = {**METHOD_CHOICES, **NETWORK_CHOICES, "decay": SCHEDULES}
# Words that the mask law checks without a list of its own.
LAW = {"mask": ("distance", "gradient", "bernoulli", "uniform"), "detail_over": ("channel", "max", "euclidean")}
PLAIN = B2G.profile("smoke")
# Readings that go with another setting only.
BASES = {"input": replace(PLAIN, output="linear"), "pilot": replace(PLAIN, patches="nl_ridge")}


def table():
    """The literal in the cell tagged ``readings``: part -> rows of (setting, kind, what is said,
    readings)."""
    notebook = nbformat.read(tool.ROOT / "book" / "readings.ipynb", as_version=4)
    [cell] = [cell for cell in notebook.cells if cells.has_tag(cell, "readings")]
    [assignment] = ast.parse(cell.source).body
    return ast.literal_eval(assignment.value)


ROWS = [row for rows in table().values() for row in rows]
READINGS = {setting: [value for value, _ in readings] for setting, _, _, readings in ROWS}


def test_every_setting_is_in_the_table_once():
    assert sorted(setting for setting, *_ in ROWS) == sorted(field.name for field in fields(B2G))


@pytest.mark.parametrize("setting", {**CHOICES, **LAW})
def test_every_choice_of_the_code_is_listed(setting):
    assert set(READINGS[setting]) == set({**CHOICES, **LAW}[setting])


@pytest.mark.parametrize("setting", {**CHOICES, **LAW})
def test_what_is_not_listed_is_refused(setting):
    with pytest.raises(B2GError):
        replace(PLAIN, **{setting: "another"})


@pytest.mark.parametrize("setting", [f.name for f in fields(B2G) if isinstance(f.default, bool)])
def test_both_sides_of_a_switch_are_listed(setting):
    assert set(READINGS[setting]) == {True, False}


@pytest.mark.parametrize("setting, value", [(s, v) for s, values in READINGS.items() for v in values])
def test_every_reading_makes_a_method_of_its_own(setting, value):
    base = BASES.get(setting, PLAIN)
    changed = replace(base, **{setting: value})
    assert getattr(changed, setting) == value
    assert (changed.identity() == base.identity()) == (getattr(base, setting) == value)


@pytest.mark.parametrize("setting, kind, says, readings", ROWS, ids=[row[0] for row in ROWS])
def test_every_row_says_what_it_is(setting, kind, says, readings):
    assert kind in ("open", "stated", "silent", "ours")
    assert says.endswith(".")
    assert len({repr(value) for value, _ in readings}) == len(readings) >= (2 if kind == "open" else 1)
    if isinstance(readings[0][0], (str, bool)):
        assert all(meaning for _, meaning in readings), "a reading needs its meaning in words"


@pytest.mark.parametrize("profile", ["paper", "faithful"])
def test_the_table_holds_what_these_profiles_take(profile):
    method = B2G.profile(profile)
    assert all(getattr(method, setting) in values for setting, values in READINGS.items())
