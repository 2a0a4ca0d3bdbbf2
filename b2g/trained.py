"""Methods whose network was fitted to many pictures beforehand, and is only applied to the one at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, ClassVar

import torch
from torch import Tensor, nn

from b2g.crops import Drawn
from b2g.errors import B2GError
from b2g.fit import autocast
from b2g.method import Circumstances, Denoised, Method, canonical_json
from b2g.released import load_into, released_file
from b2g.training import Recipe


@dataclass(frozen=True)
class Trained(Method):
    """Base of the many-image methods: the weights' place, and what a subclass must give.

    ``weights`` is the path of a file that ``b2g train`` wrote, or ``""``: the released weights of this
    ``recipe``, if there are any for the picture's number of channels. A run's identity knows released weights
    by their recipe alone, so ``revision`` rises when they are replaced.

    A subclass gives ``network(channels)``, ``training_loss(run, drawn, share, generator)`` (the loss of
    :class:`b2g.crops.CropObjective`, with a generator to draw from), perhaps
    ``answer(run, noisy, generator)``, and its ``recipes`` by name; its profiles say which recipe's weights
    they mean. ``pairs``: training needs a second noisy picture. ``supervised``: it needs the clean one.
    ``capturable``: see :class:`b2g.crops.CropObjective`.
    """

    label: ClassVar[str] = "many images"
    recipes: ClassVar[dict[str, Recipe]]
    pairs: ClassVar[bool] = False
    supervised: ClassVar[bool] = False
    capturable: ClassVar[bool] = False

    weights: str = ""
    recipe: str = "small"

    def __post_init__(self):
        super().__post_init__()
        self.chosen_recipe()  # refuses what there is not

    def chosen_recipe(self, **changes) -> Recipe:
        """The recipe of these settings, with ``changes`` to single values."""
        if self.recipe not in self.recipes:
            raise B2GError(f"{self.name} has no recipe {self.recipe!r}: choose one of {', '.join(self.recipes)}.")
        return replace(self.recipes[self.recipe], **changes)

    def training_identity(self) -> str:
        """The settings that training depends on, as canonical JSON: all but where the weights are."""
        return canonical_json({k: v for k, v in self.config().items() if k not in ("weights", "recipe")})

    def network(self, channels: int) -> nn.Module:
        """The untrained network for so many channels."""
        raise NotImplementedError

    def training_loss(
        self, run: Callable[[Tensor], Tensor], drawn: Drawn, share: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The loss of one draw of crops."""
        raise NotImplementedError

    def answer(self, run: Callable[[Tensor], Tensor], noisy: Tensor, generator: torch.Generator) -> Tensor:
        """The estimate of ``noisy`` ``(1, C, H, W)`` by passes of the network: here, one."""
        return run(noisy)

    def loaded(self, channels: int, device: torch.device) -> nn.Module:
        """The trained network on ``device``, in its state for answers."""
        place = Path(self.weights) if self.weights else released_file(self.name, self.recipe, channels)
        with torch.random.fork_rng(devices=[]):  # the first weights, which are drawn in vain
            network = load_into(self.network(channels), place, self.name, channels)
        return network.eval().to(device=device, memory_format=torch.channels_last)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)``; nothing is fitted, so there is no history and no checkpoint."""
        network = self.loaded(noisy.shape[1], noisy.device)

        def run(picture: Tensor, *more) -> Tensor:
            with autocast(picture.device, circumstances.precision):
                answer = network(picture, *more)
            return answer.float()

        generator = torch.Generator(noisy.device).manual_seed(circumstances.seed)
        with torch.no_grad():
            return Denoised(self.answer(run, noisy, generator).clamp(0, 1))
