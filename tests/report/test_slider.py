import re

import numpy as np
import pytest

from b2g.errors import B2GError
from b2g.report.slider import slide


def pictures(count=3, size=(16, 18)):
    return {f"omega = {k}": np.full(size, k / count) for k in range(count)}


def test_one_picture_and_one_name_show_and_every_picture_has_its_words():
    clean = np.zeros((16, 18))
    markup = slide(pictures(), alt="From dark to light.", clean=clean, start=1)._repr_html_()
    images = re.findall(r"<img [^>]*>", markup)
    assert [" hidden" in image for image in images] == [True, False, True]
    assert [" hidden" in name for name in re.findall(r"<span[^>]*>", markup)] == [True, False, True]
    psnr = -20 * np.log10(1 / 3)
    assert f'alt="From dark to light. omega = 1, {psnr:.2f} dB"' in images[1]
    assert 'max="2" value="1"' in markup and "<script" not in markup and "http" not in markup


def test_names_are_escaped():
    first, second = pictures(2).values()
    markup = slide({"a < b": first, '"q"': second}, alt="A & B.")._repr_html_()
    assert "a &lt; b" in markup and "a < b" not in markup and 'A &amp; B. &quot;q&quot;"' in markup


@pytest.mark.parametrize("given, sentence", [
    (dict(pictures=pictures(1)), "takes two pictures or more, but there is 1"),
    (dict(pictures=pictures(2) | {"odd": np.zeros((4, 4))}), "'omega = 0' has .16, 18. and 'odd' .4, 4."),
    (dict(pictures=pictures(), start=3), "from 0 to 2, not 3"),
    (dict(pictures=pictures(), alt=" "), "needs alt"),
])  # fmt: skip
def test_what_cannot_be_shown_is_refused(given, sentence):
    with pytest.raises(B2GError, match=sentence):
        slide(**{"alt": "Something.", **given})
