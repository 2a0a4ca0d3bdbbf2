"""Blind2Grad: zero-shot self-supervised image denoising, every equation of the paper a function.

>>> import b2g
>>> clean = b2g.load("skimage/astronaut")
>>> noisy = b2g.add_noise(clean, "gaussian", 25, seed=0)
>>> result = b2g.denoise(noisy)                                    # doctest: +SKIP
>>> b2g.psnr(clean, result.image)                                  # doctest: +SKIP
"""

from b2g import methods
from b2g.datasets import load, load_noisy
from b2g.errors import B2GError, Diverged
from b2g.face import Result, denoise
from b2g.metrics import psnr, ssim
from b2g.noise import add_noise, estimate_correlated_sigma, estimate_sigma

__version__ = "0.1.0"
__all__ = [
    "B2GError", "Diverged", "Result", "add_noise", "denoise", "estimate_correlated_sigma", "estimate_sigma", "load",
    "load_noisy", "methods", "psnr", "ssim",
]  # fmt: skip
