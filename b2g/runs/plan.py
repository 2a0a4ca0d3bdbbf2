"""Plans: which runs are wanted. A plan is a YAML file in data/plans/, or anywhere else.

    title: Omega on crops
    blocks:
    - pictures: set9            # a data set, or a list of names
      crop: 64                  # the central square of each
      take: 5                   # that many of the names, evenly spaced: a subset, named by its n
      noise: gaussian           # gaussian (sigma on 0..255), poisson (photons at white), real
      levels: [25, 50]
      repeats: [0]              # draws of noise and weights
      protocol: unclipped
      watch: training           # measured along the fit (b2g.runs.watch)
      keep: [F16]               # pictures whose answers go to data/gallery; true: all
      released: 3               # of the many-image methods, only those with released weights for 3 channels
      methods:
      - b2g/faithful: {steps: 400}
      - bm3d: {sigma: given}    # given: the level
      grid: {omega: [0.2, 0.8]} # every combination, added to each method
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import yaml

from b2g import datasets
from b2g.errors import B2GError
from b2g.face import choose_method
from b2g.files import carried
from b2g.released import release_name, released
from b2g.runs.spec import Run, specify
from b2g.trained import Trained

_FIELDS = {"pictures", "crop", "take", "noise", "levels", "repeats", "protocol", "watch", "keep", "released",
           "methods", "grid"}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A run that a plan wants, and whether its answer is kept as a picture."""

    run: Run
    keep: bool = False


@dataclass(frozen=True)
class Plan:
    """A title and its tasks, in the order of their worth, none twice."""

    title: str
    tasks: tuple[Task, ...]

    def missing(self, finished: set[str]) -> list[Task]:
        """The tasks whose run has no record among ``finished`` ids."""
        return [task for task in self.tasks if task.run.id not in finished]

    def limited(self, pictures: int | None = None) -> "Plan":
        """The tasks of the first ``pictures`` names alone."""
        names = list(dict.fromkeys(task.run.picture for task in self.tasks))[:pictures]
        return replace(self, tasks=tuple(task for task in self.tasks if task.run.picture in names))


def plan_names() -> list[str]:
    """The plans that come with the package."""
    return sorted(Path(str(path)).stem for path in _folder().iterdir() if str(path).endswith(".yml"))


def read_plan(name: str | Path) -> Plan:
    """A plan by its name in data/plans/, or from a file."""
    path = Path(name) if str(name).endswith((".yml", ".yaml")) else _folder() / f"{name}.yml"
    if not path.is_file():
        raise B2GError(f"there is no plan {str(name)!r}: choose one of {', '.join(plan_names())}, or name a .yml file.")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise B2GError(f"plan {name} is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("blocks"), list):
        raise B2GError(f"plan {name} needs a title and a list of blocks.")
    return make_plan(content.get("title", str(name)), content["blocks"])


def make_plan(title: str, blocks: list[dict]) -> Plan:
    """A plan from blocks as the YAML file has them; a run that two blocks want stands
    where it is first wanted."""
    tasks: dict[str, Task] = {}
    for block in blocks:
        for task in _block_tasks(block):
            known = tasks.get(task.run.id)
            tasks[task.run.id] = task if known is None else replace(known, keep=known.keep or task.keep)
    return Plan(title, tuple(tasks.values()))


def _block_tasks(block: dict):
    unknown = set(block) - _FIELDS
    if unknown:
        raise B2GError(f"a plan's block has no {', '.join(sorted(unknown))}: it has {', '.join(sorted(_FIELDS))}.")
    if not block.get("methods") or not block.get("pictures"):
        raise B2GError("a plan's block needs pictures and methods.")
    noise = block.get("noise", "gaussian")
    levels = block.get("levels", [0] if noise == "real" else [25])
    protocol = block.get("protocol", "as given" if noise == "real" else "unclipped")
    keep = block.get("keep", False)
    methods = {level: _methods(block, level) for level in levels}
    # Pictures outermost: a sweep that is stopped has whole rows on fewer pictures,
    # so its means can be compared.
    for picture, level in product(_pictures(block), levels):
        for method, repeat in product(methods[level], block.get("repeats", [0])):
            run = specify(picture, method, noise, level, repeat, protocol, block.get("watch") or "")
            yield Task(run, keep is True or (keep and picture.split("/")[1].split("@")[0] in keep))


def _pictures(block) -> list[str]:
    wanted, crop, take = block["pictures"], block.get("crop"), block.get("take")
    names = datasets.names(wanted) if isinstance(wanted, str) and "/" not in wanted else wanted
    names = [names] if isinstance(names, str) else list(names)
    if take:
        take = min(take, len(names))
        names = [names[i * len(names) // take] for i in range(take)]
    return [f"{name}@{crop}" if crop else name for name in names]


def _methods(block, level) -> list:
    grid = block.get("grid") or {}
    chosen, channels = [], block.get("released")
    for entry in block["methods"]:
        name, settings = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
        method, _, profile = name.partition("/")
        for values in product(*grid.values()):
            changes = dict(settings or {}) | dict(zip(grid, values))
            changes = {key: float(level) if value == "given" else value for key, value in changes.items()}
            chosen.append(choose_method(method, profile or None, **changes))
    return [method for method in chosen if channels is None or _at_hand(method, channels)]


def _at_hand(method, channels: int) -> bool:
    """Whether ``method`` has its weights: released for so many channels, named by path, or none needed."""
    if not isinstance(method, Trained) or method.weights:
        return True
    return release_name(method.name, method.recipe, channels) in released()


def _folder():
    return carried("plans")
