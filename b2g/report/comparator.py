"""A before/after comparator that needs no kernel, no script from outside, and no pointer."""

import html

from b2g.errors import B2GError
from b2g.report import figures

# Inline handlers rather than a script: they find their own comparator, so several live on one page, and
# they work wherever HTML is inserted, before or after the page has loaded.
# Without them it stays half and half.
ROOT = "this.closest('.b2g-compare')"
CHOOSE = (f"var f={ROOT},s=f.querySelectorAll('select:not(.b2g-zoom)');f.querySelectorAll('img').forEach(function(m,i)"
          "{m.classList.toggle('b2g-left',i==s[0].value);m.classList.toggle('b2g-right',i==s[1].value)})")
SLIDE = f"{ROOT}.style.setProperty('--at',this.value+'%')"
ZOOM = (f"var f={ROOT},v=f.querySelector('.b2g-view');f.style.setProperty('--zoom',this.value);"
        "v.scrollLeft=(v.scrollWidth-v.clientWidth)/2;v.scrollTop=(v.scrollHeight-v.clientHeight)/2")
DRAG = ("if(event.buttons||event.type=='pointerdown'){var r=this.getBoundingClientRect(),"
        f"i={ROOT}.querySelector('input');i.value=100*(event.clientX-r.left)/r.width;i.oninput()}}")
STYLE = """<style>
.b2g-compare{--at:50%;--zoom:1;margin:.8em 0;max-width:100%}
.b2g-compare .b2g-choices{display:flex;flex-wrap:wrap;gap:.4em;justify-content:space-between;margin-bottom:.3em}
.b2g-compare select{font:inherit;font-size:.9em;max-width:100%;color:inherit;background:transparent;
border:1px solid rgba(128,128,128,.7);border-radius:4px;padding:.1em .3em}
.b2g-compare option{color:#111;background:#fff}
.b2g-compare .b2g-view{overflow:auto;outline:1px solid rgba(128,128,128,.5);border-radius:4px}
.b2g-compare .b2g-stack{position:relative;width:calc(100%*var(--zoom));cursor:ew-resize;user-select:none;
touch-action:pan-x pan-y}
.b2g-compare img{position:absolute;inset:0;width:100%;height:100%;margin:0;visibility:hidden;
image-rendering:pixelated;pointer-events:none}
.b2g-compare img.b2g-right{visibility:visible}
.b2g-compare img.b2g-left{visibility:visible;z-index:1;clip-path:inset(0 calc(100% - var(--at)) 0 0)}
.b2g-compare img.b2g-left.b2g-right{clip-path:none}
.b2g-compare .b2g-line{position:absolute;z-index:2;top:0;bottom:0;left:var(--at);width:2px;margin-left:-1px;
background:#fff;box-shadow:0 0 0 1px #000;pointer-events:none}
.b2g-compare input{width:100%;margin:.3em 0 0}
.b2g-compare figcaption{font-size:.85em}
</style>"""


def compare(pictures, alt, clean=None, limits=(0.0, 1.0), width=None):
    """Two of several pictures laid over one another, with a slider between them.

    Drag in the picture or use the arrow keys on the slider; choose the two pictures and the zoom from the
    lists; the two always show the same place.

    Parameters
    ----------
    pictures : dict
        Name -> picture (an array (H, W) or (H, W, C), or a tensor (C, H, W)), all of one size. The first
        two are shown at the start, the first on the left.
    alt : str
        One sentence that says what there is to see; shown as the caption as well.
    clean : array or tensor, optional
        Adds each picture's PSNR against it to its name.
    limits : (float, float)
        The values that become black and white.
    width : int, optional
        Largest width in CSS pixels.
    """
    alt = figures.require_alt(alt)
    if len(pictures) < 2:
        raise B2GError(f"To compare takes two pictures or more, but there is {len(pictures)}.")
    shown = {name: figures.pixels(picture, limits) for name, picture in pictures.items()}
    sizes = {name: eight_bit.shape[:2] for name, eight_bit in shown.items()}
    (first, size), *others = sizes.items()
    for name, other in others:
        if other != size:
            raise B2GError(f"Compared pictures have one size, but {first!r} has {size} and {name!r} {other}.")
    words = list(figures.captions(pictures, clean).values())
    return figures.Shown(_markup(list(shown.values()), words, alt, size, width), alt)


def _markup(shown, words, alt, size, width):
    height, across = size
    width = width or max(figures.enlarged(across), 384)
    return (
        f'{STYLE}<figure class="b2g-compare" style="width:{width}px">'
        f'<div class="b2g-choices">{_choice("left picture", words, 0)}{_zoom()}'
        f'{_choice("right picture", words, 1)}</div>'
        f'<div class="b2g-view" style="aspect-ratio:{across}/{height}">'
        f'<div class="b2g-stack" style="aspect-ratio:{across}/{height}" '
        f'onpointerdown="{DRAG}" onpointermove="{DRAG}">{_images(shown, words, alt)}'
        f'<div class="b2g-line"></div></div></div>'
        f'<input type="range" min="0" max="100" value="50" step="1" oninput="{SLIDE}" '
        f'aria-label="How much of the left picture shows, in percent">'
        f"<figcaption>{html.escape(alt)}</figcaption></figure>")


def _images(shown, words, alt):
    kinds = ["b2g-left", "b2g-right"] + [""] * len(shown)
    return "".join(
        f'<img class="{kind}" src="{figures.data_uri(eight_bit)}" alt="{html.escape(f"{alt} {word}")}">'
        for eight_bit, word, kind in zip(shown, words, kinds))


def _choice(label, words, selected):
    options = "".join(
        f'<option value="{number}"{" selected" if number == selected else ""}>{html.escape(word)}</option>'
        for number, word in enumerate(words))
    return f'<select aria-label="{label}" onchange="{CHOOSE}">{options}</select>'


def _zoom():
    options = "".join(f'<option value="{factor}">{factor}×</option>' for factor in (1, 2, 4, 8))
    return f'<select class="b2g-zoom" aria-label="zoom" onchange="{ZOOM}">{options}</select>'
