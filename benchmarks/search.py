"""The search behind the defaults, at a smaller size: SINGD beside AdamW and Muon on one task.

    python benchmarks/search.py                       # the autoencoder, a few minutes
    python benchmarks/search.py --task lm --steps 1000

Random search with the same number of draws for each, the best over fresh seeds, and SINGD at the
setting that AdamW's own search found (``singd@adamw``). It is ``python -m benchmarks run`` with
these choices, and the table and the plot of sensitivity right after.
"""

import argparse
from pathlib import Path

import _harness
import _report
from _tasks import TASKS


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=list(TASKS), default="autoencoder")
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "muon", "singd"])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=6, help="the budget of each optimizer")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    size = f"search_{options.steps}"
    _harness.run(
        options.task,
        options.optimizers,
        size="small",
        trials=options.trials,
        seeds=options.seeds,
        output=options.output / size,
        steps=options.steps,
        carry_over=True,
    )
    file = _harness.file_of(options.output / size, "small", options.task)
    print(_report.table(file))
    _report.plot(file, options.output / size / f"{options.task}.png")
    print(f"Plot: {options.output / size / f'{options.task}.png'}")


if __name__ == "__main__":
    main()
