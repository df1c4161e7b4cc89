"""What a step costs beside AdamW's: time, compilation, program, memory, state.

    python benchmarks/price.py                                  # all parts; an hour or so
    python benchmarks/price.py --parts steps --tasks lm wine
    python benchmarks/price.py --parts width --widths 64 256
    python benchmarks/price.py --parts depth --depths 3 24 --optimizers soap "singd dense"
    python benchmarks/price.py --quick                          # small nets, to try it
    python benchmarks/price.py --table                          # Markdown, from the JSON alone
    python benchmarks/price.py --table benchmarks/README.md     # ... put into its place there
    python benchmarks/price.py --plot                           # price.png, from the JSON alone

All optimizers take turns of ten steps (so that each turn has one refresh) on the same machine,
over and over, with donated parameters and state; the ratio is the median over the rounds of a
turn's time to AdamW's turn in the same round. SINGD decides by itself whether a step refreshes,
but in the rows with "refresh=", which are the two programs without a branch: what every step
would take with a refresh, and what one without takes.

Compilation is tracing, lowering and XLA's, in seconds of the CPU (which others on the machine
hardly change), with empty caches. Lines are operations of StableHLO and instructions of compiled
HLO. The peak is arguments, temporaries, and outputs that take no argument's place.

Figures go to published/price.json, by device, a case at a time: what is interrupted is not lost.
"""

import argparse
import os
from pathlib import Path

# The QR decompositions of SOAP are LAPACK's on CPUs, whose own threads and XLA's would wait for one
# another, now and then for a hundred times as long as a decomposition takes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import _price_report as report
import jax
from _price_parts import PARTS, QUICK, TASK_NAMES, Plan, measure
from _price_program import CONTESTANTS
from _tasks import TASKS

FOLDER = Path(__file__).parent


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--optimizers", nargs="+", default=CONTESTANTS, choices=list(CONTESTANTS))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), help=f"not {TASK_NAMES}")
    parser.add_argument("--widths", nargs="+", type=int)
    parser.add_argument("--depths", nargs="+", type=int, help="numbers of blocks")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="small nets; writes to results")
    parser.add_argument("--output", type=Path, help="a folder")
    parser.add_argument("--table", nargs="?", const="", metavar="FILE", help="run nothing")
    parser.add_argument("--plot", action="store_true", help="run nothing")
    return parser.parse_args(given)


def plan_of(options: argparse.Namespace) -> Plan:
    """The default plan, or the quick one, with what the command line changes."""
    changes = {
        name: tuple(value) if isinstance(value, list) else value
        for name in ("tasks", "widths", "depths", "rounds")
        if (value := getattr(options, name)) is not None
    }
    return (QUICK if options.quick else Plan())._replace(**changes)


def main(given: list[str] | None = None) -> None:
    """Measure, or report."""
    options = arguments(given)
    folder = options.output or FOLDER / ("results" if options.quick else "published")
    file = folder / "price.json"
    if options.table is None and not options.plot:
        # A program that comes from a cache was not compiled.
        jax.config.update("jax_enable_compilation_cache", False)
        plan = plan_of(options)
        for part in options.parts:
            for case, task in plan.cases(part):
                rows = measure(part, task, list(options.optimizers), plan)
                report.save(file, part, case, rows, plan.rounds)
                print(f"\n{report.case_table(part, case, rows)}", flush=True)
    record = report.load(file)
    if options.table:
        report.write_between_markers(Path(options.table), report.tables(record))
    elif options.table is not None:
        print(report.tables(record))
    if options.table is None:
        report.plot(record, file.with_suffix(".png"))


if __name__ == "__main__":
    main()
