"""Linear combinations of similar patches, fitted group by group, and the picture they make (NL-Ridge, LIChI).

A group of k patches with n entries each is a matrix Y ``(k, n)``; its estimate is Theta Y, where Theta
``(k, k)`` minimises a quadratic risk over the matrices whose rows sum to one. Pictures are ``(H, W, C)``; the
entries of a patch are ordered (row, column, channel). On a GPU the sums over overlapping patches depend on
the order of the threads in their last bits.

References
----------
Herbreteau and Kervrann, SIAM J. Imaging Sciences 18(1), 2025, doi 10.1137/24M1630967, and IEEE Trans. Image
Processing 33, 2024, doi 10.1109/TIP.2024.3436651.
"""

from __future__ import annotations

from typing import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from b2g.groups import Groups

_CHUNK = {"cpu": 2**17, "cuda": 2**26}  # entries of the groups worked on at a time: a cache, 256 MiB
_BAND = 2**25  # entries of the table of all patches of a band, where this lets it advance by
_ADVANCE = 48  # rows at least: bands overlap by a window, and each is unfolded and folded as a whole
_FLOOR = 1e-6  # the least ridge over the energy of a group: what float32 can invert

Risk = Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]


def combinations(guide: Tensor, noise: Tensor, ridge: Tensor) -> Tensor:
    """Theta ``(G, k, k)`` of groups ``guide`` ``(G, k, n)``: rows of sum one that minimise the quadratic risk

    |Theta X - X|^2 + sum_ij Theta_ij^2 r_j + 2 sum_i Theta_ii (d_i - r_i),

    X the guide, d the ``noise`` and r the ``ridge`` ``(G, k)``, sums of variances over a patch. With d = r it
    is the risk of applying Theta to X plus such noise; for noisy X, r = 0 makes it Stein's estimate of the
    risk. The minimum is Theta = I - diag(d) (P - P 1 1' P / 1' P 1), where P is the inverse of Q = X X' +
    diag(r).
    """
    centred = guide - guide.mean(dim=1, keepdim=True)  # as Theta 1 = 1, the mean patch has no say
    gram = torch.bmm(centred, centred.mT)
    diagonal = gram.diagonal(dim1=1, dim2=2)
    energy = diagonal.sum(dim=1, keepdim=True)
    lift = (_FLOOR * energy - ridge).clamp_min(0)
    noise, ridge = noise + lift, ridge + lift
    # Nor has any multiple of 1 1' added to Q: this one keeps 1 away from the small eigenvalues.
    gram += (energy / guide.shape[1] ** 2)[..., None]
    diagonal += ridge
    inverse = _inverse(gram, many=gram.is_cuda)
    ones = inverse.sum(dim=2)
    inverse -= ones[:, :, None] * (ones / ones.sum(dim=1, keepdim=True))[:, None, :]
    theta = inverse.mul_(-noise[:, :, None])
    theta.diagonal(dim1=1, dim2=2).add_(1)
    return theta


def _inverse(gram: Tensor, many: bool) -> Tensor:
    """The inverses of positive definite matrices ``(G, k, k)``; ``many``: all at once, as a GPU likes it."""
    factor = torch.linalg.cholesky_ex(gram).L
    if not many:
        return torch.cholesky_inverse(factor)
    eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    root = torch.linalg.solve_triangular(factor, eye, upper=False)
    return torch.bmm(root.mT, root)


def weights(theta: Tensor) -> Tensor:
    """What each estimate counts: 1 / |its row of Theta|^2, between 1 and k; ``(G, k, k)`` to ``(G, k)``."""
    return (1 / theta.square().sum(dim=2)).clamp(1, theta.shape[1])


def patch_sums(plane: Tensor, patch: int) -> Tensor:
    """The sum of ``plane`` ``(H, W)`` or ``(H, W, C)`` over the patch at every position, in their order."""
    flat = plane.sum(dim=2) if plane.ndim == 3 else plane
    return F.avg_pool2d(flat[None, None], patch, 1, divisor_override=1).flatten()


def spread(values: Tensor, patch: int) -> Tensor:
    """The transpose of :func:`patch_sums`: for each pixel, the sum of the ``values`` of its patches.

    ``(H - p + 1, W - p + 1)`` to ``(H, W)``.
    """
    return F.avg_pool2d(F.pad(values[None, None], (patch - 1,) * 4), patch, 1, divisor_override=1)[0, 0]


def unfold(picture: Tensor, patch: int) -> Tensor:
    """All patches of ``(H, W, C)``, in the order of their positions: ``(positions, p p C)``."""
    height, width, channels = picture.shape
    picture = picture.contiguous()
    row = width * channels
    size = (height - patch + 1, width - patch + 1, patch, patch * channels)
    table = torch.as_strided(picture, size, (row, channels, row, 1), picture.storage_offset())
    return table.reshape(size[0] * size[1], patch * patch * channels)


def fold(table: Tensor, picture: Tensor, patch: int) -> None:
    """The transpose of :func:`unfold`: adds each patch to ``picture`` ``(H, W, C)`` where it belongs."""
    height, width, channels = picture.shape
    rows, columns = height - patch + 1, width - patch + 1
    entries = table.view(rows, columns, patch, patch, channels)
    for y in range(patch):
        for x in range(patch):
            picture[y : y + rows, x : x + columns] += entries[:, :, y, x]


def combine(groups: Groups, guide: Tensor, noisy: Tensor, risk: Risk) -> tuple[Tensor, Tensor | None]:
    """Estimate every group from ``noisy`` with the Theta of ``guide``, and average the patches.

    ``risk`` maps the positions of some groups ``(G, k)`` to the noise, the ridge (see :func:`combinations`)
    and, or None, to a share ``(G,)`` in [0, 1). With shares there is a second picture, of (1 - share)
    estimate + share noisy. ``guide`` and ``noisy`` are ``(H, W, C)`` and may be the same; the pictures
    returned have that shape.
    """
    patch, (height, width) = groups.patch, groups.shape
    across = width - patch + 1
    estimate, mixture = torch.zeros_like(noisy), None
    weight, kept = noisy.new_zeros(2, (height - patch + 1) * across).unbind()
    for index, top, bottom in _bands(groups, guide.shape[2]):
        rows = slice(top, bottom + patch)  # of pixels
        source = unfold(noisy[rows], patch)
        model = source if guide is noisy else unfold(guide[rows], patch)
        sums = [torch.zeros_like(source)]
        for some in index.split(_chunk(index.shape[1], source)):
            noise, ridge, share = risk(some)
            here = some.flatten() - top * across
            shape = (*some.shape, source.shape[1])
            theta = combinations(model.index_select(0, here).view(shape), noise, ridge)
            weigh = weights(theta)
            answer = torch.bmm(theta * weigh[:, :, None], source.index_select(0, here).view(shape))
            sums[0].index_add_(0, here, answer.flatten(0, 1))
            weight.index_add_(0, some.flatten(), weigh.flatten())
            if share is not None:
                sums += [torch.zeros_like(source)] if len(sums) == 1 else []
                sums[1].index_add_(0, here, (answer * (1 - share)[:, None, None]).flatten(0, 1))
                kept.index_add_(0, some.flatten(), (weigh * share[:, None]).flatten())
        fold(sums[0], estimate[rows], patch)
        if len(sums) == 2:
            mixture = torch.zeros_like(noisy) if mixture is None else mixture
            fold(sums[1], mixture[rows], patch)
    total = spread(weight.view(-1, across), patch)[..., None]
    if mixture is not None:  # what is kept of the noisy picture is the same from every patch
        mixture = (mixture + noisy * spread(kept.view(-1, across), patch)[..., None]) / total
    return estimate / total, mixture


def _bands(groups: Groups, channels: int) -> Iterator[tuple[Tensor, int, int]]:
    """Groups ``(G, k)`` of some rows of references, and the first and last row of positions that they use."""
    row = (groups.shape[1] - groups.patch + 1) * groups.patch**2 * channels
    first = 0
    for end in range(1, len(groups.spans) + 1):
        if end < len(groups.spans):
            size = (groups.spans[end][1] - groups.spans[first][0] + 1) * row
            full = size > _BAND and groups.spans[end][1] - groups.spans[first][1] >= _ADVANCE
        if end == len(groups.spans) or full:
            yield groups.index[first:end].flatten(0, 1), groups.spans[first][0], groups.spans[end - 1][1]
            first = end


def _chunk(members: int, table: Tensor) -> int:
    """How many groups are worked on at a time."""
    return max(1, _CHUNK["cuda" if table.is_cuda else "cpu"] // (members * table.shape[1]))
