r"""The Gaussian likelihood of a pixel under a blind-spot network, and the mean of its clean value given the
pixel.

The network says of each clean pixel x, unseen, that it is normal with mean mu and covariance Sigma_x over the
channels; white noise of variance sigma^2 makes the noisy one y normal with Sigma_y = Sigma_x + sigma^2 I.
Minimised is

.. math:: \tfrac12 (y - \mu)^T \Sigma_y^{-1} (y - \mu) + \tfrac12 \log |\Sigma_y|,

and the answer takes the pixel itself back in: (Sigma_x^-1 + I / sigma^2)^-1 (Sigma_x^-1 mu + y / sigma^2),
which is

.. math:: E[x \mid y] = y - \sigma^2 \Sigma_y^{-1} (y - \mu).

Source: Laine, Karras, Lehtinen and Aila, NeurIPS 2019, doi 10.48550/arXiv.1901.10277.
"""

from __future__ import annotations

import torch
from torch import Tensor

Rows = list[list[Tensor]]


def answers_for(channels: int) -> int:
    """How many numbers per pixel say a mean and a covariance: 9 in colour, 2 in gray."""
    return channels + channels * (channels + 1) // 2


def mean_and_covariance(answers: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """mu ``(B, C, H, W)`` and Sigma_x = A^T A ``(B, C, C, H, W)`` of answers ``(B, C + C (C + 1) / 2, H,
    W)``.

    A is upper triangular, row by row in the last answers; whatever these are, Sigma_x is a covariance.
    """
    mean, entries = answers[:, :channels], answers[:, channels:]
    batch, _, height, width = answers.shape
    factor = answers.new_zeros(batch, channels, channels, height, width)
    rows, columns = torch.triu_indices(channels, channels, device=answers.device)
    factor[:, rows, columns] = entries
    return mean, torch.einsum("bkihw,bkjhw->bijhw", factor, factor)


def _cholesky(matrix: Tensor) -> Rows:
    """The lower triangular factor of ``(B, C, C, H, W)``, entry by entry: thousands of tiny matrices at once.
    """
    rows: Rows = []
    for i in range(matrix.shape[1]):
        row: list[Tensor] = []
        for j in range(i + 1):
            rest = matrix[:, i, j] - sum(a * b for a, b in zip(row, rows[j] if j < i else row))
            row.append(rest.sqrt() if j == i else rest / rows[j][j])
        rows.append(row)
    return rows


def _solve_lower(rows: Rows, right: Tensor) -> list[Tensor]:
    """z in L z = ``right`` ``(B, C, H, W)``, channel by channel."""
    found: list[Tensor] = []
    for i, row in enumerate(rows):
        found.append((right[:, i] - sum(a * b for a, b in zip(row, found))) / row[i])
    return found


def _solve_upper(rows: Rows, right: list[Tensor]) -> Tensor:
    """w in L^T w = ``right``, ``(B, C, H, W)``."""
    found: list[Tensor] = [None] * len(rows)
    for i in reversed(range(len(rows))):
        known = sum(rows[k][i] * found[k] for k in range(i + 1, len(rows)))
        found[i] = (right[i] - known) / rows[i][i]
    return torch.stack(found, 1)


def _noisy_factor(covariance: Tensor, sigma: Tensor | float) -> Rows:
    """The Cholesky factor of Sigma_y; ``sigma`` is a number or ``(B, 1, H, W)``."""
    eye = torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)[:, :, None, None]
    variance = sigma[:, :, None].square() if isinstance(sigma, Tensor) else sigma**2
    return _cholesky(covariance + variance * eye)


def negative_log_likelihood(noisy: Tensor, mean: Tensor, covariance: Tensor, sigma: Tensor | float) -> Tensor:
    """The mean over pixels of the loss above (without its constant C/2 log 2 pi), ``()``.

    ``noisy``, ``mean`` ``(B, C, H, W)``, ``covariance`` as :func:`mean_and_covariance` gives it; ``sigma`` is
    positive, in the picture's units, a number or ``(B, 1, H, W)``.
    """
    rows = _noisy_factor(covariance, sigma)
    square = sum(part.square() for part in _solve_lower(rows, noisy - mean))
    return (0.5 * square + sum(row[-1].log() for row in rows)).mean()


def posterior(noisy: Tensor, mean: Tensor, covariance: Tensor, sigma: Tensor | float) -> Tensor:
    """E[x | y], ``(B, C, H, W)``; arguments as in :func:`negative_log_likelihood`."""
    rows = _noisy_factor(covariance, sigma)
    variance = sigma**2
    return noisy - variance * _solve_upper(rows, _solve_lower(rows, noisy - mean))
