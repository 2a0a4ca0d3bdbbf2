"""What the tests of the theory draw: a picture with an edge, and masks that ignore the noise."""

import torch

from b2g import masks

SIGMA = 25.0


def scene(size=16, channels=1):
    """A ramp with an edge: something for a gradient to see."""
    ramp = torch.linspace(0.2, 0.8, size, dtype=torch.float64)
    image = ramp[:, None] * 0.5 + ramp[None, :] * 0.3
    image[size // 2 :, : size // 3] += 0.3
    return image.expand(1, channels, size, size).clone()


def bernoulli(generator, masked=0.25):
    return lambda noisy: masks.bernoulli_mask(noisy.shape, masked, generator=generator)
