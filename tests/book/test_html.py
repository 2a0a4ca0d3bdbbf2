"""The built pages ask nothing of the outside, name every picture, and offer no button that leads nowhere."""

import re
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import notebooks as tool
import pytest
import yaml

ROOT = tool.ROOT
HTML = ROOT / "_build" / "html"
PAGES = sorted(HTML.glob("*.html"))
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
          "object": "data", "embed": "src"}  # fmt: skip
LOADED_LINKS = {"stylesheet", "preload", "modulepreload", "icon", "preconnect", "dns-prefetch", "prefetch"}
COLAB = "https://colab.research.google.com/github/"

pytestmark = pytest.mark.skipif(not PAGES, reason="the book is not built: make book")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.elements, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data):
        self.words.append(data)

    def loads(self):
        """Every address that the browser fetches by itself."""
        for tag, attributes in self.elements:
            if tag in LOADED and attributes.get(LOADED[tag]):
                yield attributes[LOADED[tag]]
            if tag == "link" and LOADED_LINKS & set(attributes.get("rel", "").split()):
                yield attributes["href"]

    def links(self):
        return [attributes["href"] for tag, attributes in self.elements if tag == "a" and "href" in attributes]

    def names(self):
        return {attributes[key] for _, attributes in self.elements for key in ("id", "name") if key in attributes}


@cache
def page(path):
    return Page(path.read_text())


def external(address):
    return urlsplit(address).scheme in ("http", "https", "ftp") or address.startswith("//")


def test_every_listed_document_has_its_page():
    missing = [path.stem for path in tool.documents() if not (HTML / f"{path.stem}.html").is_file()]
    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_nothing_is_fetched_from_outside(path):
    assert [address for address in page(path).loads() if external(address)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_whatever_is_fetched_is_there(path):
    inside = [urlsplit(address) for address in page(path).loads() if not external(address)]
    files = [HTML / unquote(parts.path) for parts in inside if parts.scheme != "data"]
    assert [file for file in files if not file.is_file()] == []


def test_no_stylesheet_asks_for_more():
    pattern = re.compile(r"""(?:@import\s+|url\(\s*)['"]?(?:https?:)?//""")
    assert [path for path in HTML.rglob("*.css") if pattern.search(path.read_text())] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_picture_has_words(path):
    images = [attributes for tag, attributes in page(path).elements if tag == "img"]
    assert [image.get("src", "")[:80] for image in images if not image.get("alt", "").strip()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_bare_numpy_scalar(path):
    assert not re.search(r"\bnp\.(?:float|int|bool)\w*\(", " ".join(page(path).words)) or path.stem == "search"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_inside_the_book_arrive(path):
    lost = []
    for link in page(path).links():
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = HTML / unquote(parts.path) if parts.path else path
        arrives = target.is_file() and (
            not parts.fragment or target.suffix != ".html" or unquote(parts.fragment) in page(target).names())
        if not arrives:
            lost.append(link)
    assert lost == []


def test_buttons_follow_the_one_address():
    repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    links = [link for path in PAGES for link in page(path).links()]
    colab = [link for link in links if link.startswith(COLAB)]
    if not repository["url"]:
        assert not colab and not [link for link in links if "executablebooks/jupyter-book" in link]
        return
    start = f"{COLAB}{repository['url'].removeprefix('https://github.com/')}/blob/{repository['branch']}/"
    offered = {link.removeprefix(start) for link in colab}
    assert offered == {f"book/{path.name}" for path in tool.documents() if path.suffix == ".ipynb"}
