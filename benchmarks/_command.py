"""One harness for all comparisons: tasks x optimizers x seeds.

    python -m benchmarks list
    python -m benchmarks run autoencoder gcn --optimizers adamw muon singd
    python -m benchmarks run all                      # an hour or so on two cores
    python -m benchmarks run lm vit --dtypes float32 bfloat16 --optimizers adamw kfac ikfac singd
    python -m benchmarks time lm                      # interleaved times of steps
    python -m benchmarks memory lm --dtypes float32 bfloat16      # bytes of the compiled step
    python -m benchmarks table                        # from the files of runs alone
    python -m benchmarks plot

Every optimizer has the same number of random draws from its recorded ranges, on seed 0; the best
setting is run over fresh seeds. Runs that are there are not made again.
"""

import argparse
import itertools
from pathlib import Path

import _harness
import _report
from _optimizers import OPTIMIZERS
from _public import PUBLIC
from _tasks import TASKS

MAIN = ["adamw", "muon", "sgd", "singd", "singd_block", "kfac"]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("tasks", nargs="*", default=[], metavar="TASK", help="or all")
    common.add_argument("--size", choices=["small", "base"], default="small")
    common.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    commands.add_parser("list", help="tasks, optimizers and their ranges")
    run = commands.add_parser("run", parents=[common], help="search, then fresh seeds")
    timing = commands.add_parser("time", parents=[common], help="steps, interleaved with AdamW's")
    memory = commands.add_parser("memory", parents=[common], help="of the compiled step")
    for command in (run, timing, memory):
        command.add_argument("--optimizers", nargs="+", default=MAIN, choices=list(OPTIMIZERS))
    for command in (run, memory):
        command.add_argument(
            "--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"]
        )
    run.add_argument("--trials", type=int, default=6, help="of each optimizer's search")
    run.add_argument("--seeds", type=int, default=3)
    run.add_argument("--steps", type=int, help="instead of the task's own")
    run.add_argument("--carry-over", action="store_true", help="SINGD at AdamW's best setting, too")
    timing.add_argument("--rounds", type=int, default=15)
    commands.add_parser("table", parents=[common], help="Markdown")
    plotting = commands.add_parser("plot", parents=[common], help="a PNG for each task")
    plotting.add_argument("--optimizers", nargs="+", choices=list(OPTIMIZERS), help="not all")
    plotting.add_argument("--suffix", default="", help="of the names of the files")
    options = parser.parse_args(arguments)
    if options.command == "list":
        listing()
        return
    unknown = set(options.tasks) - {*TASKS, *PUBLIC, "all"}
    if unknown:
        known = ", ".join(["all", *TASKS, *PUBLIC])
        parser.error(f"unknown tasks {sorted(unknown)}; there are: {known}")
    tasks = list(TASKS) if set(options.tasks) & {"all"} or not options.tasks else options.tasks
    if options.command == "run":
        for task, dtype in itertools.product(tasks, options.dtypes):
            _harness.run(
                task,
                options.optimizers,
                size=options.size,
                trials=options.trials,
                seeds=options.seeds,
                output=options.output,
                dtype=dtype,
                steps=options.steps,
                carry_over=options.carry_over,
            )
    elif options.command == "memory":
        for task, dtype in itertools.product(tasks, options.dtypes):
            _harness.measure_memory(
                task, options.optimizers, size=options.size, output=options.output, dtype=dtype
            )
    elif options.command == "time":
        for task in tasks:
            _harness.time_steps(
                task,
                options.optimizers,
                size=options.size,
                rounds=options.rounds,
                output=options.output,
            )
    else:
        wanted = [
            file
            for task in tasks
            for dtype in ("float32", "bfloat16")
            if (file := _harness.file_of(options.output, options.size, task, dtype)).exists()
        ]
        if options.command == "table":
            text = "\n".join([_report.summary(wanted), *(_report.table(f) for f in wanted)])
            print(text)
            (options.output / f"{options.size}.md").write_text(text)
        else:
            for file in wanted:
                picture = options.output / f"{options.size}_{file.stem}{options.suffix}.png"
                _report.plot(file, picture, options.optimizers)
                print(picture)


def listing() -> None:
    """Print what there is."""
    print("Tasks:")
    for name, make in TASKS.items():
        task = make()
        print(f"  {name:16} {task.measure}; {task.steps} steps at size small")
    print(f"Tasks on public sets, downloaded when run, not in `all`: {', '.join(PUBLIC)}")
    print("Optimizers, with the ranges of their search (log-uniform):")
    for name, optimizer in OPTIMIZERS.items():
        structures = str(optimizer.structures or "")
        ranges = ", ".join(f"{k} {a:g}..{b:g}" for k, (a, b) in optimizer.ranges.items())
        print(f"  {name:22} {structures:22} {ranges}")
