"""What is shown are the picture's own pixels, and every image carries its alternative text."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from b2g.errors import B2GError
from b2g.metrics import psnr
from b2g.report import compare, figures, plots, show, show_row

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (16, 20, 3)) / 255
GRAY = RNG.integers(0, 256, (16, 20)) / 255


class Elements(HTMLParser):
    """The elements of a fragment, and a check that what opens closes."""

    def __init__(self, markup):
        super().__init__()
        self.found, self.open = [], []
        self.feed(markup)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def decoded(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


@pytest.mark.parametrize(
    "picture",
    [
        COLOUR,
        torch.from_numpy(COLOUR.transpose(2, 0, 1).copy()),
        torch.from_numpy(COLOUR.transpose(2, 0, 1).copy())[None],
    ],
)
def test_shown_pixels_are_the_pictures_own(picture):
    assert np.array_equal(decoded(figures.data_uri(figures.pixels(picture))), np.rint(COLOUR * 255))


def test_gray_pictures_in_every_layout():
    for picture in (GRAY, GRAY[..., None], torch.from_numpy(GRAY), torch.from_numpy(GRAY)[None, None]):
        assert np.array_equal(figures.pixels(picture), np.rint(GRAY * 255))


def test_limits_become_black_and_white_and_the_rest_is_clipped():
    assert figures.pixels(np.array([[-1.0, -0.5, 0.0, 0.5, 1.0]]), (-0.5, 0.5)).tolist() == [[0, 0, 128, 255, 255]]
    with pytest.raises(B2GError, match="rise"):
        figures.pixels(GRAY, (1, 1))


def test_a_large_picture_travels_as_jpeg_close_to_itself():
    noise = RNG.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    address = figures.data_uri(noise)
    assert address.startswith("data:image/jpeg")
    assert np.abs(decoded(address).astype(int) - noise).mean() < 12  # a picture of mere noise: the worst case


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (2, 4, 4, 3)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(B2GError, match="channels"):
        figures.pixels(np.zeros(shape))


def test_a_row_names_and_scores_its_pictures():
    shown = show_row({"clean": COLOUR, "a <b>": COLOUR * 0.9}, alt='A "test".', clean=COLOUR)
    images = Elements(shown._repr_html_()).all("img")
    assert [image["alt"] for image in images] == [
        'A "test". clean', f'A "test". a <b>, {psnr(COLOUR, COLOUR * 0.9):.2f} dB']  # fmt: skip
    assert repr(shown) == '[A "test".]'


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_no_figure_without_alternative_text(alt):
    with pytest.raises(B2GError, match="alt"):
        show_row({"clean": COLOUR}, alt=alt)
    with pytest.raises(B2GError, match="alt"):
        compare({"a": COLOUR, "b": COLOUR}, alt=alt)


def test_a_plot_is_a_white_card_with_alternative_text_and_is_closed():
    import matplotlib.pyplot as plt

    with plots(1, 2) as (figure, axes):
        axes[0].plot([1, 2])
    assert not plt.fignum_exists(figure.number)
    [image] = Elements(show(figure, alt="Two panels.", caption="1 < 2")._repr_html_()).all("img")
    assert image["alt"] == "Two panels."
    assert decoded(image["src"]).shape[1] == 1050  # 7 inches at 150 dots: sharp on a dense screen


def test_the_comparator_starts_with_the_first_two_and_holds_each_picture_once():
    pictures = {"noisy": COLOUR, "clean": COLOUR / 2, "other": COLOUR / 3}
    elements = Elements(compare(pictures, alt="Three.")._repr_html_())
    images = elements.all("img")
    assert [image["class"] for image in images] == ["b2g-left", "b2g-right", ""]
    for image, picture in zip(images, pictures.values()):
        assert np.array_equal(decoded(image["src"]), figures.pixels(picture))
    assert [option["value"] for option in elements.all("option") if "selected" in option] == ["0", "1"]
    assert all(element.get("aria-label") for element in elements.all("select") + elements.all("input"))


def test_the_comparator_asks_nothing_of_the_page():
    markup = compare({"a": COLOUR, "b": COLOUR}, alt="Two.")._repr_html_()
    assert "<script" not in markup and "http" not in markup and not re.search(r'\bid="', markup)


def test_the_comparator_refuses_what_cannot_be_laid_over():
    with pytest.raises(B2GError, match="one size"):
        compare({"a": COLOUR, "b": COLOUR[:-1]}, alt="Two.")
    with pytest.raises(B2GError, match="two pictures"):
        compare({"a": COLOUR}, alt="One.")
