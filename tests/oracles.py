"""Slow and obvious NumPy versions of what the package computes, and the statistical tests of the suite."""

import math

import numpy as np

KERNELS = {  # rows of the 3x3 neighbourhood: the difference across; the difference down is the transpose
    "forward": [[0, 0, 0], [0, -1, 1], [0, 0, 0]],
    "backward": [[0, 0, 0], [-1, 1, 0], [0, 0, 0]],
    "central": [[0, 0, 0], [-1 / 2, 0, 1 / 2], [0, 0, 0]],
    "sobel": [[-1 / 8, 0, 1 / 8], [-2 / 8, 0, 2 / 8], [-1 / 8, 0, 1 / 8]],
}


def gradient(image, operator):
    """Spatial gradient of ``(..., H, W)`` as a list of components, pixel by pixel, borders replicated."""
    if operator == "identity":
        return [np.array(image, float)]
    across, height, width = np.array(KERNELS[operator]), *image.shape[-2:]
    components = []
    for kernel in (across, across.T):
        out = np.zeros(image.shape)
        for i in range(height):
            for j in range(width):
                for a in range(3):
                    for b in range(3):
                        row = min(max(i + a - 1, 0), height - 1)
                        column = min(max(j + b - 1, 0), width - 1)
                        out[..., i, j] += kernel[a, b] * image[..., row, column]
        components.append(out)
    return components


def z(count, trials, probability):
    """How many standard deviations ``count`` lies from its binomial expectation."""
    return (count - trials * probability) / math.sqrt(trials * probability * (1 - probability))


def assert_rate(count, trials, probability, unlike):
    """``count`` of ``trials`` fits ``probability``, and can tell it from every rate in ``unlike``."""
    count, trials = float(count), float(trials)
    assert abs(z(count, trials, probability)) < 4.5, (count / trials, probability)
    for other in np.atleast_1d(unlike):
        assert abs(z(trials * probability, trials, other)) > 9, (
            f"too few trials to tell {probability} from {other}"
        )


def assert_mean(values, mean, unlike):
    """The mean of independent ``values`` fits ``mean``, and is sharp enough to tell it from ``unlike``."""
    values = np.asarray(values, float).ravel()
    error = values.std(ddof=1) / math.sqrt(values.size)
    assert abs(values.mean() - mean) < 4.5 * error, (values.mean(), mean, error)
    assert abs(mean - unlike) > 9 * error, f"too few values to tell {mean} from {unlike}"
