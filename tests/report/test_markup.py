"""Tables keep every cell, escape it, name their headers, and scroll by themselves."""

from html.parser import HTMLParser

import pytest

from b2g.errors import B2GError
from b2g.report.markup import Mark, table


class Grid(HTMLParser):
    """The table read back: its cells as text, and the tags with their attributes."""

    def __init__(self, markup):
        super().__init__()
        self.rows, self.tags, self.depth, self.caption = [], [], [], ""
        self.feed(markup)
        assert not self.depth, "what opens closes"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.depth.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag

    def handle_data(self, data):
        if "td" in self.depth or "th" in self.depth:
            self.rows[-1][-1] += data
        elif "caption" in self.depth:
            self.caption += data


HEADER = ("method", "PSNR", "remark")
ROWS = [("bm3d", "31.70", "a < b & c"), ("b2g", Mark("32.01", "best"), None),
        ("n2n", Mark("not run", "missing"), "")]


def test_every_cell_is_there_and_escaped():
    grid = Grid(table(HEADER, ROWS, "Means over <nine> pictures")._repr_html_())
    assert grid.rows == [
        list(HEADER), ["bm3d", "31.70", "a < b & c"], ["b2g", "32.01", ""], ["n2n", "not run", ""]]
    assert grid.caption == "Means over <nine> pictures"


def test_a_long_name_may_break_at_its_joints_in_the_first_column_only():
    rows = [("ap_bsn/short_white+steps", "a_b"), (Mark("b2g/real", "best", "a/b"), "1")]
    shown = table(("method", "as"), rows, "Two.")
    html = shown._repr_html_()
    assert '<th scope="row">ap_<wbr>bsn/<wbr>short_<wbr>white+<wbr>steps</th><td>a_b</td>' in html
    assert 'title="a/b">b2g/<wbr>real</span>' in html
    assert "<wbr>" not in repr(shown) and "ap_bsn/short_white+steps" in repr(shown)


def test_it_scrolls_by_itself_and_a_keyboard_can_scroll_it():
    tags = Grid(table(HEADER, ROWS, "Means")._repr_html_()).tags
    box = dict(tags)["div"]
    assert box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"] == "Means"
    assert [attributes["scope"] for tag, attributes in tags if tag == "th"] == ["col"] * 3 + ["row"] * 3


def test_numbers_stand_to_the_right_and_words_to_the_left():
    tags = Grid(table(HEADER, ROWS, "Means")._repr_html_()).tags
    cells = [attributes.get("class") for tag, attributes in tags if tag in ("td", "th")]
    assert cells == [None, "b2g-number", None] * 4


def test_a_mark_says_why():
    markup = table(("a",), [(Mark("1", "doubtful", 'the row "x" again'),)], "c")._repr_html_()
    assert 'class="b2g-doubtful" title="the row &quot;x&quot; again"' in markup


def test_the_text_form_has_the_same_cells():
    text = repr(table(("method", "dB"), [("bm3d", "31.70"), ("b2g", Mark("32.01", "best"))], "Set9", "n = 9"))
    assert text == "[Set9]\nmethod  dB\nbm3d    31.70\nb2g     32.01\nn = 9"


@pytest.mark.parametrize("rows, caption, word", [
    ([("one", "two")], "c", "has 2 cells, the header 3"),
    ([("one", 2.0, "")], "c", "not 2.0"),
    ([], " ", "caption"),
])
def test_what_is_no_table_is_refused(rows, caption, word):
    with pytest.raises(B2GError, match=word):
        table(HEADER, rows, caption)


def test_an_unknown_mark_is_refused():
    with pytest.raises(B2GError, match="'bold'"):
        Mark("1", "bold")
