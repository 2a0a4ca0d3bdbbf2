"""One of several pictures at a time, chosen by a slider: a parameter's effect, with no kernel behind it."""

import html

from b2g.errors import B2GError
from b2g.report import figures

# Inline, as in the comparator: works wherever HTML is inserted, however often on a page.
CHOOSE = ("var n=this.value,f=this.closest('.b2g-slide');f.querySelectorAll('[data-at]').forEach(function(e)"
          "{e.hidden=e.dataset.at!=n});this.setAttribute('aria-valuetext',"
          "f.querySelector('span[data-at]:not([hidden])').textContent)")
STYLE = """<style>
.b2g-slide{margin:.8em 0;max-width:100%}
.b2g-slide img{width:100%;height:auto;display:block;margin:0;image-rendering:pixelated}
.b2g-slide [hidden]{display:none!important}
.b2g-slide input{width:100%;margin:.4em 0 0}
.b2g-slide output{display:block;font-weight:600;font-size:.9em;text-align:left}
.b2g-slide figcaption{font-size:.85em;color:inherit;font-family:inherit;font-weight:inherit;
margin-left:0;text-align:left}
html[data-theme] .b2g-slide img{filter:none}
html[data-theme="dark"] .bd-content div.cell_output .b2g-slide img{background:none;border-radius:0;padding:0}
</style>"""


def slide(pictures, alt, clean=None, limits=(0.0, 1.0), start=0, width=None):
    """A slider that goes through `pictures` in their order.

    Parameters
    ----------
    pictures : dict
        Name -> picture (an array (H, W) or (H, W, C), or a tensor (C, H, W)), all of one size.
    alt : str
        One sentence that says what there is to see; shown as the caption as well.
    clean : array or tensor, optional
        Adds each picture's PSNR against it to its name.
    limits : (float, float)
        The values that become black and white.
    start : int
        Which picture is shown first, from 0.
    width : int, optional
        Largest width in CSS pixels.
    """
    alt = figures.require_alt(alt)
    if len(pictures) < 2:
        raise B2GError(f"A slider takes two pictures or more, but there is {len(pictures)}.")
    if not 0 <= start < len(pictures):
        raise B2GError(f"start is the number of a picture, from 0 to {len(pictures) - 1}, not {start}.")
    shown = {name: figures.pixels(picture, limits) for name, picture in pictures.items()}
    (first, size), *others = ((name, eight_bit.shape[:2]) for name, eight_bit in shown.items())
    for name, other in others:
        if other != size:
            raise B2GError(f"Pictures of a slider have one size, but {first!r} has {size} and {name!r} {other}.")
    words = list(figures.captions(pictures, clean).values())
    width = width or max(figures.enlarged(size[1]), 320)
    return figures.Shown(_markup(list(shown.values()), words, alt, start, width), alt)


def _markup(shown, words, alt, start, width):
    away = ["" if number == start else " hidden" for number in range(len(words))]
    images = "".join(
        f'<img data-at="{number}"{away[number]} src="{figures.data_uri(eight_bit)}" '
        f'alt="{html.escape(f"{alt} {words[number]}")}">' for number, eight_bit in enumerate(shown))
    names = "".join(f'<span data-at="{number}"{away[number]}>{html.escape(word)}</span>'
                    for number, word in enumerate(words))
    return (
        f'{STYLE}<figure class="b2g-slide" style="width:{width}px">{images}'
        f'<input type="range" min="0" max="{len(words) - 1}" value="{start}" step="1" oninput="{CHOOSE}" '
        f'aria-label="Which picture shows" aria-valuetext="{html.escape(words[start])}">'
        f"<output>{names}</output><figcaption>{html.escape(alt)}</figcaption></figure>")
