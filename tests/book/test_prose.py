"""No measured number is typed by hand: what a page says of a measurement, a cell computed.

Every number in prose that has the form of a measurement (a unit, a decimal point, "times") must stand in
data/stated.yml, which says what it is and who states it: the paper, another source, a definition, a setting.
The same holds for numbers with a unit in the strings of code cells, since a printed sentence is prose too.
"""

import ast
import re

import cells
import nbformat
import notebooks as tool
import pytest
import yaml

ROOT = tool.ROOT
STATED = yaml.safe_load((ROOT / "data" / "stated.yml").read_text(encoding="utf-8"))
PAGES = sorted([*(ROOT / "book").glob("*.ipynb"), *(ROOT / "book").glob("*.md")])

UNIT = (r"(?:dB|decibels?|%|percent|per cent|ms|milliseconds?|s|seconds?|min|minutes?|hours?|h|days?"
        r"|[KMG]i?B|(?:kilo|mega|giga)bytes?|megapixels?|times|fold|gr[ae]y levels?)(?![\w-])")
FIGURE = r"(?:\d+(?:[.,]\d+)?|\.\d+)(?:e[+-]?\d+)?"
WORD = (r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty"
        r"|seventy|eighty|ninety|a hundred|half a|a quarter of a|a third of a|a tenth of a)")
MEASURED = re.compile(
    rf"(?<![\w.])(?:{FIGURE}[\s~-]*{UNIT}"                 # 0.3 dB, 20 %, 3 times, 12 s
    r"|\d*\.\d+(?:e[+-]?\d+)?(?![\w.])"                    # any decimal: 0.956
    r"|\d+e[+-]?\d+"                                       # 1e-7
    rf"|{FIGURE}\s?[×x](?![\w×]|\s*\d)"                    # 2.5x, 3×; not 256 × 256
    rf"|{WORD}\s+(?:decibels?|dB|percent|per cent))")      # two decibels
WITH_UNIT = re.compile(rf"(?<![\w.]){FIGURE}[\s~-]*{UNIT}|(?<![\w.])0?\.\d{{3}}(?![\w.])")
# What has the form of a decimal and is the name of a thing: the paper's equations, sections, versions.
EQUATION = r"(?:1\.1|3\.(?:1[0-5]|[1-9])|4\.[1-6])"
NAMES = re.compile(
    rf"\({EQUATION}\)|(?:Equations?|Eqs?\.|Sections?|Python|torch|version)\s+\(?\d+\.\d+\)?"
    rf"(?:\s*(?:,|and|to|or|-|–)\s*\(?{EQUATION}\)?)*")


# --- what is left of a page once code, formulas, links and names are taken away ------------------------

def plain(markdown):
    """The prose of a page, of the same length: what is no prose is blanked out.

    A formula goes, unless it is a bare number ("$0.3$ dB") or ends in one ("$\\gamma \\approx 0.63$").
    """
    for pattern in (r"^(`{3,}|~{3,}).*?^\1", r"^\$\$.*?\$\$", r"<!--.*?-->"):
        markdown = re.sub(pattern, _blank, markdown, flags=re.DOTALL | re.MULTILINE)
    for pattern in (r"^:\w+:.*$", r"`[^`]*`", r"\]\([^)]*\)", r"https?://\S+"):
        markdown = re.sub(pattern, _blank, markdown, flags=re.MULTILINE)
    markdown = re.sub(r"\$[^$]+\$", _formula, markdown)
    return NAMES.sub(_blank, markdown)


def _blank(match):
    return re.sub(r"[^\n]", " ", match[0])


def _formula(match):
    formula = match[0]
    ending = re.search(rf"(?:^\$|=|\\approx|[<>]|\\[lg]eq?\b)\s*[+-]?({FIGURE})\s*(?:\\%)?\$$", formula)
    if not ending:
        return _blank(match)
    start = ending.start(1)
    return " " * start + ending[1] + " " * (len(formula) - start - len(ending[1]))


def measurements(markdown):
    """Spans of everything in a page's prose that has the form of a measurement."""
    return [found.span() for found in MEASURED.finditer(plain(markdown))]


def strings(code):
    """The string literals of a cell, pieces of f-strings among them; not the formats of numbers."""
    skipped, found = set(), []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FormattedValue) and node.format_spec:
            skipped.update(map(id, ast.walk(node.format_spec)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            found.append(node.value)
    return found


def typed_results(code):
    """(text, number) for numbers with a unit, or SSIM-like ones, in strings, formulas and styles aside."""
    texts = [re.sub(r"\$[^$]+\$|<style>.*?(?:</style>|\Z)", _blank, text, flags=re.DOTALL)
             for text in strings(code)]
    return [(text, hit.group()) for text in texts for hit in WITH_UNIT.finditer(text)]


# --- what is stated ------------------------------------------------------------------------------------

def squeezed(text):
    return re.sub(r"\s+", " ", text)


def entries(page):
    return [squeezed(entry["text"]) for entry in STATED if entry["pages"] == "all" or page in entry["pages"]]


def allowed(markdown, span, phrases):
    """Whether the text at `span` lies within one of the stated phrases; line breaks count as blanks."""
    for phrase in phrases:
        for found in re.finditer(r"\s+".join(map(re.escape, phrase.split(" "))), markdown):
            if found.start() <= span[0] and span[1] <= found.end():
                return True
    return False


def sources(path):
    """The markdown and the code of a page, cell by cell; the setup cell, which is generated, is left out."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")], []
    notebook = nbformat.read(path, as_version=4)
    code = [cell.source for cell in cells.code_cells(notebook) if not cells.has_tag(cell, "setup")]
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"], code


def hand_typed(markdowns, codes, phrases):
    """What would have to be computed, or listed in data/stated.yml, with a few words around it."""
    prose = [squeezed(text[max(0, start - 40):end + 20])
             for text in markdowns for start, end in measurements(text)
             if not allowed(text, (start, end), phrases)]
    code = [f"in code: {hit!r} of {squeezed(text)[:80]!r}"
            for code in codes for text, hit in typed_results(code)
            if not any(hit in phrase and phrase in squeezed(text) for phrase in phrases)]
    return prose + code


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_measurement_is_computed_or_stated(path):
    assert hand_typed(*sources(path), entries(path.stem)) == []


# --- the list itself -----------------------------------------------------------------------------------

def test_the_list_says_what_and_whence():
    for entry in STATED:
        assert set(entry) == {"text", "pages", "what", "source"}, entry
        assert all(isinstance(entry[key], str) and entry[key].strip() for key in ("text", "what", "source"))
        assert re.search(rf"\d|{WORD}", entry["text"]), f"no number in {entry['text']!r}"


def test_nothing_is_listed_that_no_page_says():
    texts = {}
    for path in PAGES:
        markdowns, codes = sources(path)
        literals = [text for code in codes for text in strings(code)]
        texts[path.stem] = squeezed("\n".join([*markdowns, *literals]))
    for entry in STATED:
        saying = {page for page, text in texts.items() if squeezed(entry["text"]) in text}
        wanted = saying or {"any page"} if entry["pages"] == "all" else set(entry["pages"]) & set(texts)
        assert wanted <= saying, f"{sorted(wanted - saying)} do not say {entry['text']!r}"


# --- the check sees what it is for ---------------------------------------------------------------------

@pytest.mark.parametrize("planted, seen", [
    ("It gains 0.3 dB over the plain mask.", "0.3 dB"),
    ("It gains $0.3$ dB.", "0.3"),
    ("It gains **2 dB**.", "2 dB"),
    ("an SSIM of 0.956", "0.956"),
    ("an SSIM of .956", ".956"),
    ("after 12 seconds", "12 seconds"),
    ("a 20-minute run", "20-minute"),
    ("5% of the pixels", "5%"),
    ("about 3 times faster", "3 times"),
    ("it is 2.5x faster", "2.5"),
    ("it is 3× faster", "3×"),
    ("an error of 1e-7", "1e-7"),
    ("we find $\\gamma_\\star \\approx 0.63$ there", "0.63"),
    ("in 45 min", "45 min"),
    ("worse by two decibels", "two decibels"),
    ("| fast | 31.67 |", "31.67"),
    ("uses 512 MB of memory", "512 MB"),
])
def test_a_planted_measurement_is_seen(planted, seen):
    [(start, end)] = measurements(planted)
    assert planted[start:end].startswith(seen)
    assert hand_typed([planted], [], [])
    assert not hand_typed([planted], [], [planted])


@pytest.mark.parametrize("harmless", [
    "Equation (3.4) and (3.15), Eq. (4.5), Section 4.2, Python 3.11",
    "a crop of 256 × 256 pixels, 512x512",
    "with $\\sigma = \\sqrt{2} / 2.5 + x$ in it",
    "`b2g.denoise(y, omega=0.8)` and {glue:text}`gain` dB",
    "$$L = 0.5 \\, \\|d\\|^2 \\tag{3.9}$$",
    "```python\nprint('0.3 dB')\n```",
    "four noise levels, 50 steps, Table 2, Figure 7, 9 pictures",
    "[the loss](loss.ipynb#equation-34) {cite}`song2025blind2grad`",
    "<!-- 0.3 dB -->",
])
def test_what_is_no_measurement_is_let_pass(harmless):
    assert measurements(harmless) == []


@pytest.mark.parametrize("planted, seen", [
    ('print("gains 0.3 dB")', "0.3 dB"),
    ('verdict("fast wins", True, "by 2 dB")', "2 dB"),
    ('show(figure, alt=f"{name} reaches 31.7 dB in {seconds:.0f} s")', "31.7 dB"),
    ('caption = "SSIM 0.956"', "0.956"),
])
def test_a_number_typed_into_code_is_seen(planted, seen):
    assert [hit for _, hit in typed_results(planted)] == [seen]
    assert hand_typed([], [planted], [])


@pytest.mark.parametrize("harmless", [
    'print(f"gains {gain:.2f} dB in {seconds:6.1f} s")', "rate = 0.3  # 0.3 dB", 'print("PSNR [dB]")',
    'verdict("(3.4) vanishes", True, f"{x:.1e}")', 'axes.set(ylabel="$0.5$ dB")',
])
def test_computed_numbers_in_code_are_let_pass(harmless):
    assert typed_results(harmless) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_measurement_planted_in_a_page_is_seen(path):
    (first, *others), codes = sources(path)
    planted = [f"{first}\n\nThis method gains 0.37 dB.", *others]
    assert any("0.37 dB" in found for found in hand_typed(planted, codes, entries(path.stem)))
    if codes:
        codes = [*codes, 'print("This method gains 0.37 dB.")']
        assert any("0.37 dB" in found for found in hand_typed([], codes, entries(path.stem)))


def test_a_stated_phrase_covers_its_own_number_only():
    text = "The paper sets the weight to 0.8,\nand we find 0.8 best."
    [first, second] = measurements(text)
    assert allowed(text, first, ["sets the weight to 0.8, and"])
    assert not allowed(text, second, ["weight to 0.8"])
