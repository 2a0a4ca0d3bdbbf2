"""Pictures and plots as outputs that carry their alternative text and read well on light and dark pages."""

import base64
import html
import io
from contextlib import contextmanager

import numpy as np
from PIL import Image

from b2g import metrics
from b2g.errors import B2GError

LARGEST_PNG = 90_000      # bytes; a bigger picture is shown as JPEG, to keep notebooks light
JPEG_QUALITY = 90
SMALLEST_SHOWN = 200      # a smaller picture is enlarged by whole pixels to at least this width
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
CARD = "background:#fff;color:#111;border-radius:6px;padding:6px;box-sizing:border-box"


def pixels(picture, limits=(0.0, 1.0)):
    """Eight-bit pixels (H, W) or (H, W, 3) of a picture, `limits` becoming black and white.

    Takes an array (H, W) or (H, W, C), or a tensor (H, W), (C, H, W) or (1, C, H, W), with 1 or 3 channels.
    """
    if hasattr(picture, "detach"):
        array = picture.detach().cpu().float().numpy()
        array = array[0] if array.ndim == 4 and len(array) == 1 else array
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    else:
        array = np.asarray(picture, dtype=np.float64)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3)):
        raise B2GError(f"A picture to show has 1 or 3 channels, but this one has the shape {array.shape}.")
    low, high = limits
    if not high > low:
        raise B2GError(f"The limits of a picture must rise, but they are {low} and {high}.")
    return np.rint(255 * np.clip((array - low) / (high - low), 0, 1)).astype(np.uint8)


def data_uri(eight_bit):
    """The pixels inside an address: PNG while it is small, else JPEG without colour subsampling."""
    image = Image.fromarray(eight_bit)
    kind, data = "png", _encoded(image, "PNG", optimize=True)
    if len(data) > LARGEST_PNG:
        kind, data = "jpeg", _encoded(image, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def captions(pictures, clean=None):
    """Name -> caption: the name, with the PSNR against `clean` for every picture but `clean` itself."""
    words = {}
    for name, picture in pictures.items():
        same = clean is None or picture is clean
        words[name] = name if same else f"{name}, {metrics.psnr(clean, picture):.2f} dB"
    return words


def require_alt(alt):
    if not isinstance(alt, str) or not alt.strip():
        raise B2GError("A figure needs alt=...: one sentence that says what there is to see.")
    return alt.strip()


class Shown:
    """An output of a cell: HTML where there is a page, its alternative text elsewhere."""

    def __init__(self, markup, alt):
        self.markup, self.alt = markup, alt

    def _repr_html_(self):
        return self.markup

    def __repr__(self):
        return f"[{self.alt}]"


def show_row(pictures, alt, clean=None, limits=(0.0, 1.0), width=None):
    """A row of pictures with captions under them; it wraps on a narrow screen.

    Parameters
    ----------
    pictures : dict
        Caption -> picture, as `pixels` takes it.
    alt : str
        One sentence that says what there is to see; each picture's caption is added to it.
    clean : array or tensor, optional
        Adds each picture's PSNR against it to the caption.
    limits : (float, float)
        The values that become black and white: (0, 1) for pictures, (-0.2, 0.2) for a residual, say.
    width : int, optional
        Shown width of one picture in CSS pixels; by default its own, or a multiple of it if it is small.
    """
    alt = require_alt(alt)
    cells = []
    for name, words in captions(pictures, clean).items():
        eight_bit = pixels(pictures[name], limits)
        shown = width or enlarged(eight_bit.shape[1])
        cells.append(
            f'<figure style="margin:0;flex:0 1 {shown}px;min-width:min(100%,120px)">'
            f'<img src="{data_uri(eight_bit)}" alt="{html.escape(f"{alt} {words}")}" '
            f'style="width:100%;height:auto;display:block;image-rendering:pixelated">'
            f'<figcaption style="font-size:.85em;margin-top:.25em">{html.escape(words)}</figcaption></figure>')
    return Shown(f'<div class="b2g-row" style="display:flex;flex-wrap:wrap;gap:12px;margin:.6em 0">'
                 f'{"".join(cells)}</div>', alt)


def enlarged(width):
    """A multiple of `width` of at least SMALLEST_SHOWN CSS pixels."""
    return width * max(1, -(-SMALLEST_SHOWN // width))


@contextmanager
def plots(rows=1, columns=1, width=7.0, height=3.2, **options):
    """A Matplotlib figure in the book's style: ``with plots(1, 2) as (figure, axes): ...``, then `show` it.

    `options` go to ``plt.subplots``. The figure is closed on leaving, so that it is not shown a second time.
    """
    import matplotlib.pyplot as plt

    style = {
        "axes.prop_cycle": plt.cycler(color=COLOURS), "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.25, "figure.facecolor": "white", "font.size": 10,
        "legend.frameon": False, "lines.linewidth": 1.6,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def show(figure, alt, caption=""):
    """A Matplotlib figure on a white card, with its alternative text.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    alt : str
        One sentence that says what there is to see, for those who do not see it.
    caption : str
        Printed under the figure.
    """
    alt = require_alt(alt)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    # Few colours suffice for lines and text and take a third of the bytes.
    image = Image.open(stream).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    data = base64.b64encode(_encoded(image, "PNG", optimize=True)).decode()
    under = f'<figcaption style="font-size:.85em">{html.escape(caption)}</figcaption>' if caption else ""
    return Shown(
        f'<figure class="b2g-figure" style="margin:.6em 0"><img src="data:image/png;base64,{data}" '
        f'alt="{html.escape(alt)}" style="{CARD};width:{figure.get_figwidth() * 100:.0f}px;max-width:100%;'
        f'height:auto">{under}</figure>', alt)
