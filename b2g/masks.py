"""Masks: which pixels the network sees, and which it is asked to predict (Eq. 3.1 to 3.3).

A *mask* is a float tensor ``(B, C, H, W)`` with 1 where the pixel is kept (visible) and 0 where it is
masked (hidden): the paper's ``Omega_m``. Equations 3.2 and 3.3 speak of *sets of masked pixels*, which are
the complement; here such a set is a float tensor too, 1 where the pixel is in the set.

Source: Song, Shuai, Si and Li, AIMS Mathematics 10(6), 2025, Section 3.1, doi 10.3934/math.2025637.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from b2g.errors import B2GError


def _check_fraction(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise B2GError(f"{name} is a fraction of the pixels and must lie in [0, 1], not {value}.")
    return float(value)


def _uniform(shape, generator: torch.Generator, per_channel: bool) -> Tensor:
    """Uniform numbers in [0, 1) of ``shape``, equal across channels unless ``per_channel``."""
    batch, channels, height, width = shape
    drawn = (batch, channels if per_channel else 1, height, width)
    numbers = torch.rand(drawn, generator=generator, device=generator.device)
    return numbers.expand(batch, channels, height, width)


def bernoulli_mask(shape, masked: float = 0.25, *, generator: torch.Generator, per_channel: bool = True) -> Tensor:
    """Hide every pixel independently with probability ``masked``: the first mask of the loop, ``Omega_1``.

    ``shape`` is ``(B, C, H, W)``; the result is a mask (1 = kept) on the generator's device.
    ``per_channel`` draws red, green and blue apart, as Self2Self does; the other reading shares one draw
    among the channels, as Blind2Unblind does. The paper does not say; the chapter on masks measures both.
    """
    _check_fraction("masked", masked)
    return (_uniform(shape, generator, per_channel) >= masked).to(torch.float32)


def uniform_pixel_mask(
    shape, masked: float = 0.25, *, generator: torch.Generator, per_channel: bool = True
) -> Tensor:
    """Uniform pixel selection (UM in the paper's Figure 13a):
    exactly ``round(masked * H * W)`` hidden pixels.

    The paper names the strategy of Noise2Void and Noise2Self without a rule; read here as a draw without
    replacement, the same number of hidden pixels in every picture (and channel). ``bernoulli_mask`` fixes the
    number only on average.
    """
    _check_fraction("masked", masked)
    batch, channels, height, width = shape
    numbers = _uniform(shape, generator, per_channel).reshape(batch, channels, -1)
    hidden = numbers.argsort(dim=-1)[..., : round(masked * height * width)]
    return torch.ones_like(numbers).scatter(-1, hidden, 0.0).reshape(shape)


def stratified_mask(shape, masked: float, *, generator: torch.Generator, per_channel: bool = True) -> Tensor:
    """Hide one pixel, anywhere, of every square cell: Noise2Void's stratified sampling; a mask (1 = kept).

    The side of a cell is the whole number nearest to 1 / sqrt(``masked``), 2 at least. Hidden pixels then
    cannot crowd, as independent draws would let them. Cells that the border cuts may hide none.
    """
    batch, channels, height, width = shape
    cell = max(2, round(_check_fraction("masked", masked) ** -0.5)) if masked > 0 else height + width
    rows, columns = -(-height // cell), -(-width // cell)
    drawn = (_uniform((batch, channels, rows, columns), generator, per_channel) * cell**2).long()
    drawn = drawn.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[..., :height, :width]
    across, down = (torch.arange(side, device=drawn.device) % cell for side in (width, height))
    return (drawn != down[:, None] * cell + across).float()


def grid_masks(height: int, width: int, cell: int = 4, *, device=None) -> Tensor:
    """The ``cell**2`` fixed masks that hide one pixel of every ``cell x cell`` square,
    ``(cell**2, 1, H, W)``.

    Together they hide every pixel exactly once (Noise2Self's grid, Blind2Unblind's global masker).
    """
    if cell < 2:
        raise B2GError(f"cell must be at least 2, so that some pixel stays visible, not {cell}.")
    rows = torch.arange(height, device=device)[:, None] % cell
    columns = torch.arange(width, device=device)[None, :] % cell
    position = rows * cell + columns
    return torch.stack([(position != k).float()[None] for k in range(cell * cell)])


def ring_mean(picture: Tensor) -> Tensor:
    """The mean of every pixel's eight neighbours, weights 1 (edge) and 1/2 (corner): ``(B, C, H, W)``,
    same shape.

    The border is mirrored without its last pixel, so that no pixel is its own neighbour.
    """
    padded = torch.nn.functional.pad(picture, (1, 1, 1, 1), mode="reflect")
    beside = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    above, below = padded[..., :-2, :], padded[..., 2:, :]
    edges = beside + above[..., 1:-1] + below[..., 1:-1]
    corners = above[..., :-2] + above[..., 2:] + below[..., :-2] + below[..., 2:]
    return (edges + corners / 2) / 6


def ring_fill(picture: Tensor, mask: Tensor) -> Tensor:
    """``picture`` ``(B, C, H, W)`` with the hidden pixels of ``mask`` (1 = kept)
    replaced by :func:`ring_mean`.

    A mask of one channel, or a stack of masks for one picture, is broadcast. Where no two hidden pixels
    touch, as in :func:`grid_masks`, the result depends on no hidden pixel. Noise2Self's fill, which
    Blind2Unblind took over with zeros around the picture; mirrored here, because zeros darken its border.
    """
    return torch.where(mask > 0.5, picture, ring_mean(picture))


def detail_distance(noisy: Tensor, estimate: Tensor, over: str = "channel") -> Tensor:
    r"""Distance of the noisy picture to the running estimate, :math:`\sqrt{(y_i - x_{m,i})^2}` (Eq. 3.1).

    ``noisy`` and ``estimate`` are ``(B, C, H, W)`` in [0, 1]; so is the result. The printed ``max`` leaves
    three readings, all measured in the chapter on masks: ``"channel"`` (the default: no maximum, every
    channel for itself), ``"max"`` (the largest over the channels), ``"euclidean"`` (the root of the sum of
    squares over the channels, as the text's "Euclidean distance" suggests).
    """
    difference = (noisy - estimate).abs()
    if over == "channel":
        return difference
    if over == "max":
        return difference.amax(1, keepdim=True).expand_as(difference)
    if over == "euclidean":
        return difference.square().sum(1, keepdim=True).sqrt().expand_as(difference)
    raise B2GError(f"over must be 'channel', 'max' or 'euclidean', not {over!r}.")


def detail_index(distance: Tensor, detail_threshold: float = 40.0) -> Tensor:
    r"""The index of detail, :math:`i_n = 1` where :math:`\varepsilon_g \ge G_{max}` (Eq. 3.1), else 0.

    ``detail_threshold`` is on 0..255 (the paper sets 40, and calls it both epsilon_g and G_max);
    ``distance`` is in [0, 1].
    """
    return (distance >= detail_threshold / 255.0).to(distance.dtype)


def gradient_index(estimate: Tensor, fraction: float = 0.1) -> Tensor:
    r"""Another reading of "detail": the ``fraction`` of pixels where the estimate's own gradient is largest.

    The paper wants the index to mark edges and texture. The distance of Eq. 3.1 marks noise outliers
    (the chapter on masks counts them); the gradient magnitude of :math:`x_m` does mark edges.
    ``estimate`` is ``(B, C, H, W)``; the threshold is the quantile of each picture and channel.
    """
    _check_fraction("fraction", fraction)
    padded = torch.nn.functional.pad(estimate, (0, 1, 0, 1), mode="replicate")
    across = padded[..., :-1, 1:] - estimate
    down = padded[..., 1:, :-1] - estimate
    magnitude = (across.square() + down.square()).sqrt().flatten(2)
    pixels = magnitude.shape[-1]
    count = max(1, round(fraction * pixels))
    threshold = magnitude.kthvalue(pixels - count + 1, dim=-1, keepdim=True).values
    # Flat ground is no detail even where less than the fraction has any gradient:
    # all detail would hide nothing.
    return ((magnitude >= threshold) & (magnitude > 0)).to(estimate.dtype).reshape(estimate.shape)


def split_by_detail(masked_set: Tensor, *details: Tensor) -> tuple[Tensor, Tensor]:
    r"""Split a set of masked pixels into those on detail and those on flat ground (Eq. 3.2).

    .. math:: I_{B_m} = I^{I}_i \odot B_m + I^{II}_i \odot B_m, \quad
              I_{B^c_m} = I^{I,c}_i \odot B_m + I^{II,c}_i \odot B_m, \quad I^c = 1 - I

    ``masked_set`` is :math:`B_m` (1 = masked here; one factor of the printed equation is garbled and is read
    as :math:`B_m`), ``details`` the indices of the layers, one or more. A sum of sets is read as their union,
    so both results stay 0/1; with more than one layer a pixel that the layers judge differently is in both.
    """
    if not details:
        raise B2GError("split_by_detail needs at least one index of detail.")
    on_detail = torch.stack([index * masked_set for index in details]).amax(0)
    on_flat = torch.stack([(1 - index) * masked_set for index in details]).amax(0)
    return on_detail, on_flat


def flat_masked_rate(detail_fraction: Tensor | float, masked: float, detail_masked: float) -> Tensor:
    """The rate at which flat pixels must be masked so that ``masked`` of all pixels are (Eq. 3.3).

    Solves ``masked = d * detail_masked + (1 - d) * rate`` for ``rate`` and caps it at 1: where the detail set
    is larger than ``1 - masked`` the 25 % of the paper cannot be reached, however many flat pixels are
    hidden.
    """
    fraction = torch.as_tensor(detail_fraction)
    return ((masked - fraction * detail_masked) / (1 - fraction).clamp_min(1e-12)).clamp(0.0, 1.0)


def dual_mask(
    detail: Tensor,
    masked: float = 0.25,
    detail_masked: float = 0.0,
    *,
    generator: torch.Generator,
    per_channel: bool = True,
) -> Tensor:
    r"""The dual mask :math:`\Omega_m`: fewer masked pixels on detail, more on flat ground (Eq. 3.3).

    .. math:: \Omega_m = I_{B^-_m} + I_{B^c_m} + I_{B^{c,+}_m}

    Read as sets of masked pixels: a Bernoulli set :math:`B_m` of rate ``masked`` is split by Eq. 3.2; of its
    detail part only ``detail_masked / masked`` remain (:math:`B^-`); flat pixels join (:math:`B^{c,+}`) until
    ``masked`` of all pixels are hidden. The result is the complement, a mask (1 = kept) like every other here
    (copied to the letter, Eq. 3.3 would hide the 75 % and show the 25 %).

    ``detail`` is the index ``(B, C, H, W)``, 1 = detail. ``detail_masked`` is the rate on detail: 0 zeroes it
    ("diminish the nonzero I_B" to nothing, the literal reading), ``masked / 2`` halves it, ``masked`` gives
    back the Bernoulli mask; a larger one masks detail *more*. All are measured in the chapter on masks.
    """
    _check_fraction("masked", masked)
    _check_fraction("detail_masked", detail_masked)
    fraction = detail.mean(dim=(-2, -1), keepdim=True)
    flat_rate = flat_masked_rate(fraction, masked, detail_masked)
    rate = torch.where(detail > 0.5, torch.full_like(detail, detail_masked), flat_rate.expand_as(detail))
    # One uniform number per pixel decides B_m, what leaves it and what joins it: raising or lowering a
    # pixel's rate then only ever removes from, or adds to, the Bernoulli set drawn from the same numbers.
    return (_uniform(detail.shape, generator, per_channel) >= rate).to(detail.dtype)


def masked_fraction(mask: Tensor) -> float:
    """The share of hidden pixels of a mask, in [0, 1]."""
    return 1.0 - float(mask.mean())


def expected_detail_fraction(sigma: float, detail_threshold: float = 40.0) -> float:
    r"""The share of pixels that Eq. 3.1 calls detail when the estimate is perfect and the noise Gaussian.

    :math:`P(|n| \ge \varepsilon_g) = \mathrm{erfc}(\varepsilon_g / (\sigma \sqrt 2))`, ``sigma`` and
    ``detail_threshold`` on 0..255: noise alone passes the threshold, whatever the picture shows.
    """
    if sigma <= 0:
        raise B2GError(f"sigma is a noise level on 0..255 and must be positive, not {sigma}.")
    return math.erfc(detail_threshold / (sigma * math.sqrt(2.0)))
