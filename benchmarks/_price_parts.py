"""The three parts of what is measured: tasks, widths, and depths of the transformer."""

import statistics
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
from _price_program import REPEATS, TURN, Program, program_of
from _tasks import TASKS, Task, language_model
from tqdm import tqdm

#: Contestant -> its row.
Rows = dict[str, dict[str, Any]]

TASK_NAMES = ("lm", "cnn", "autoencoder", "wine", "breast_cancer")


class Plan(NamedTuple):
    """What to measure of what.

    Attributes:
      tasks: Of the part "steps".
      widths: Of the part "width"; of three blocks.
      depths: Of the part "depth": numbers of blocks, which are not scanned. Nothing is run there.
      rounds: Turns of each contestant.
      repeats: How often each program is compiled, at most.
      network: Sizes of the transformer in the last two parts, beside these.
    """

    tasks: tuple[str, ...] = TASK_NAMES
    widths: tuple[int, ...] = (64, 256)
    depths: tuple[int, ...] = (3, 6, 12, 24)
    rounds: int = 15
    repeats: int = REPEATS
    network: tuple[tuple[str, int], ...] = ()

    def cases(self, part: str) -> Iterable[tuple[str, Task]]:
        """The name of each case of a part, and its task."""
        if part == "steps":
            return ((name, TASKS[name]()) for name in self.tasks)
        what, sizes = {"width": ("width", self.widths), "depth": ("blocks", self.depths)}[part]
        return ((str(n), language_model(**dict(self.network) | {what: n})) for n in sizes)


#: Small nets, which say nothing about prices: for tests.
QUICK = Plan(
    tasks=("wine",),
    widths=(8,),
    depths=(1,),
    rounds=2,
    repeats=1,
    network=(("width", 8), ("blocks", 1), ("batch", 2), ("context", 8)),
)

PARTS = ("steps", "width", "depth")


def measure(part: str, task: Task, names: list[str], plan: Plan) -> Rows:
    """A row for each contestant; AdamW is always one of them, and comes first."""
    names = ["adamw", *(name for name in names if name != "adamw")]
    programs = {
        name: program_of(task, name, plan.repeats)
        for name in tqdm(names, desc=f"{part}: compile", leave=False)
    }
    rows = {name: program.row for name, program in programs.items()}
    if part == "depth":
        return rows
    seconds = race(task, programs, plan.rounds)
    for name, own in seconds.items():
        ratios = [a / b for a, b in zip(own, seconds["adamw"], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows[name] |= {
            "milliseconds": statistics.median(own) / TURN * 1e3,
            "ratio": ratio,
            "quartiles": [low, high],
        }
    return rows


def race(task: Task, programs: dict[str, Program], rounds: int) -> dict[str, list[float]]:
    """The seconds of all turns of each contestant; they take turns, over and over.

    A turn is ten steps, so that each has one refresh.
    """
    data = jax.block_until_ready(list(task.batches(TURN, 0)))
    carries = {}
    for name, program in programs.items():
        params = jax.jit(task.init)(jax.random.key(0))
        carries[name] = (params, jax.jit(program.init)(params))
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for round_ in tqdm(range(rounds + 1), desc="rounds", leave=False):
        for name, program in programs.items():
            params, opt_state = jax.block_until_ready(carries.pop(name))
            begin = time.perf_counter()
            for batch in data:
                params, opt_state, _ = program.step(params, opt_state, batch)
            jax.block_until_ready((params, opt_state))
            if round_:  # the first one warms up
                seconds[name].append(time.perf_counter() - begin)
            carries[name] = (params, opt_state)
    return seconds
