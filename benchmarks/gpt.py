"""Language models of 3 and 110 million parameters on real text: loss by steps and seconds, memory.

    python benchmarks/gpt.py medium                     # width 256, 4 blocks, bytes; hours of a CPU
    python benchmarks/gpt.py base                       # GPT-2 small, bfloat16, for a GPU
    python benchmarks/gpt.py tiny --steps 20            # to try it
    python benchmarks/gpt.py medium --optimizers adamw "singd auto polar@0.03" --rates 4e-3 8e-3
    python benchmarks/gpt.py medium --table             # from the results alone

The text is the source of the installed packages (``_corpus.py``). An optimizer is "adamw", "muon"
any other of this package that needs no layers ("soap"), or "singd", its structures, and what
``_variants.py`` knows of directions and damping; then, if wished, "gate=top", "refresh=0" (never)
or "refresh=1" (on each step), and "factors=bfloat16". Learning rates are arguments of one compiled
step. With ``--search N`` all rates run for N steps, and the best of them for all steps.
One line of JSON for each run; seconds are of training alone, without compilation or validation.
"""

import argparse
import dataclasses
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _bytes import tree_bytes
from _corpus import VOCABULARIES, Corpus, corpus
from _gpt import GPT
from _text import batches
from _variants import rule_of
from tqdm import tqdm

import singd_optax

FOLDER = Path(__file__).parent
WEIGHT_DECAY = 0.1
#: Between validations.
BLOCK = 50
OPTIMIZERS = ["adamw", "muon", "soap", "singd auto natural", "singd auto polar"]


@dataclasses.dataclass(frozen=True)
class Size:
    """A model and its batches; numbers are computed in ``dtype``."""

    width: int
    heads: int
    blocks: int
    context: int
    batch: int
    steps: int
    text: str = "bytes"
    dtype: str = "float32"
    megabytes: float = 48.0


SIZES = {
    "tiny": Size(32, 2, 2, 32, 4, 100, megabytes=0.3),
    "medium": Size(256, 4, 4, 128, 32, 1000),
    "base": Size(768, 12, 12, 512, 16, 1000, "bpe", "bfloat16"),
}


class Training(NamedTuple):
    """One optimizer, compiled.

    Attributes:
      init: params -> state.
      step: (params, state, all batches, index, rate) -> (params, state, loss).
      row: What is known without a run.
    """

    init: Any
    step: Any
    row: dict[str, Any]


class Problem(NamedTuple):
    """What to train, on what."""

    size: Size
    text: Corpus
    model: GPT
    held_out: jax.Array

    def loss(self, params: Any, tokens: jax.Array) -> jax.Array:
        """Nats a token."""
        logits = self.model.apply({"params": params}, tokens[:, :-1]).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    def init(self, seed: int) -> Any:
        """Parameters, in float32."""
        shape = (self.size.batch, self.size.context)
        return self.model.init(jax.random.key(seed), jnp.zeros(shape, jnp.int32))["params"]


def problem_of(size: Size, folder: Path) -> Problem:
    """The model, and its text."""
    text = corpus(size.text, folder, size.megabytes)
    model = GPT(
        VOCABULARIES[size.text],
        size.width,
        size.heads,
        size.blocks,
        size.context,
        jnp.dtype(size.dtype),
    )
    held_out = batches(text.held_out, 128 if size.width < 700 else 64, size.context, 1, 0)[0]
    return Problem(size, text, model, jnp.asarray(held_out, jnp.int32))


def _body_axes(params: Any) -> Any:
    """Muon for matrices but embeddings and head, which go to AdamW, as its author has it."""

    def axes(path: Any, leaf: Any) -> Any:
        outside = any(key.key in ("Embed_0", "position", "head") for key in path)
        return None if outside or leaf.ndim < 2 else optax.contrib.MuonDimensionNumbers()

    return jax.tree_util.tree_map_with_path(axes, params)


def training_of(problem: Problem, name: str, steps: int, data: jax.Array) -> Training:
    """Compile an optimizer's step, with donated parameters and state."""
    first, *words = name.split()
    params = jax.eval_shape(lambda: problem.init(0))
    shape = optax.warmup_cosine_decay_schedule(0, 1.0, max(steps // 20, 1), steps)
    options = dict(word.split("=") for word in words if "=" in word)
    words = [word for word in words if "=" not in word]
    decay = {"weight_decay": WEIGHT_DECAY}
    layers = grad_fn = None
    if first == "singd":
        layers = singd_optax.find_layers(
            problem.loss,
            params,
            jax.ShapeDtypeStruct(data.shape[1:], data.dtype),
            structures=words[0],
            loss_average="batch+sequence",
            factor_dtype=options.get("factors"),
        )
        grad_fn = singd_optax.value_and_grad(problem.loss, layers, gate=options.get("gate"))
        static = {"refresh": bool(int(options["refresh"]))} if "refresh" in options else {}
        rule = rule_of(" ".join(words[1:]) or "natural", problem.size.batch * problem.size.context)

    def transformation(rate: Any) -> Any:
        schedule = lambda count: rate * shape(count)
        if layers is not None:
            return singd_optax.optimizer(schedule, rule, layers, **decay)
        made = {
            "adamw": lambda: optax.adamw(schedule, b2=0.95, **decay),
            "muon": lambda: optax.contrib.muon(
                schedule,
                consistent_rms=0.2,
                adam_b2=0.95,
                adam_weight_decay=WEIGHT_DECAY,
                muon_weight_dimension_numbers=_body_axes,
                **decay,
            ),
        }.get(first, lambda: getattr(singd_optax, first)(schedule, **decay))()
        return optax.with_extra_args_support(made)

    def step(params: Any, state: Any, data: Any, index: Any, rate: Any) -> Any:
        batch = jax.lax.dynamic_index_in_dim(data, index, keepdims=False)
        extra: dict[str, Any] = {}
        if grad_fn is None:
            value, grads = jax.value_and_grad(problem.loss)(params, batch)
        else:
            value, grads, extra["curvature"] = grad_fn(params, batch, opt_state=state, **static)
            extra |= static
        updates, state = transformation(rate).update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state, value

    init = jax.jit(lambda params: transformation(jnp.float32(1e-3)).init(params))
    state = jax.eval_shape(init, params)
    begin = time.perf_counter()
    arguments = (params, state, data, jnp.int32(0), jnp.float32(1e-3))
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    taken = compiled.memory_analysis()
    outputs = taken.output_size_in_bytes - taken.alias_size_in_bytes
    row = {
        "compile_seconds": round(seconds, 2),
        "state_bytes": tree_bytes(state),
        "params_bytes": tree_bytes(params),
        "peak_bytes": taken.argument_size_in_bytes + taken.temp_size_in_bytes + outputs,
        "conditionals": (compiled.as_text() or "").count(" conditional("),
    }
    return Training(init, compiled, row)


def run(
    problem: Problem, training: Training, data: jax.Array, steps: int, rate: float, seed: int
) -> dict[str, Any]:
    """Train, and validate now and then."""
    evaluate = jax.jit(problem.loss)
    params = jax.jit(problem.init, static_argnums=0)(seed)
    state = training.init(params)
    indices = [jnp.int32(i) for i in range(steps)]
    rate_ = jnp.float32(rate)
    curve, blocks = [[0, 0.0, round(float(evaluate(params, problem.held_out)), 4)]], []
    jax.block_until_ready((params, state, indices))
    for start in range(0, steps, BLOCK):
        begin = time.perf_counter()
        for index in indices[start : start + BLOCK]:
            params, state, _ = training.step(params, state, data, index, rate_)
        jax.block_until_ready(params)
        blocks.append((time.perf_counter() - begin) / len(indices[start : start + BLOCK]))
        loss = float(evaluate(params, problem.held_out))
        spent = curve[-1][1] + blocks[-1] * len(indices[start : start + BLOCK])
        curve.append([min(start + BLOCK, steps), round(spent, 3), round(loss, 4)])
        if not math.isfinite(loss):
            break
    return {
        "steps": steps,
        "rate": rate,
        "seed": seed,
        "final": curve[-1][2] if math.isfinite(curve[-1][2]) else None,
        "milliseconds": round(1e3 * statistics.median(blocks[1:] or blocks), 3),
        "curve": curve,
    }


def main(given: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("--optimizers", nargs="+", default=OPTIMIZERS)
    parser.add_argument("--rates", nargs="+", type=float, default=[2e-3, 4e-3, 8e-3])
    parser.add_argument("--search", type=int, metavar="N", help="steps for each rate")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--output", type=Path, default=FOLDER / "results", help="a folder")
    options = parser.parse_args(given)
    file = options.output / f"gpt_{options.size}.jsonl"
    if not options.table:
        train(options, file)
    print(table([json.loads(line) for line in file.read_text().splitlines()]))


def train(options: argparse.Namespace, file: Path) -> None:
    """All runs that are asked for."""
    size = SIZES[options.size]
    steps = options.steps or size.steps
    problem = problem_of(size, options.output)
    device = jax.devices()[0].device_kind
    about = {"size": options.size, "device": device, "jax": jax.__version__}
    about["text"] = problem.text.name
    for name in options.optimizers:
        length = options.search or steps
        drawn = batches(problem.text.training, size.batch, size.context, steps, 0)
        data = jnp.asarray(drawn, jnp.int32)
        searched = training_of(problem, name, length, data)
        found: dict[float, float] = {}
        with tqdm(total=len(options.rates), desc=name) as bar:

            def record(result: dict[str, Any], made: Training, bar: Any = bar, n: str = name):
                row = {"optimizer": n, **about, **made.row, **result}
                with file.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
                bar.set_postfix(rate=result["rate"], final=result["final"])

            for rate in options.rates:
                result = run(problem, searched, data, length, rate, options.seeds[0])
                found[rate] = result["final"] or math.inf
                record(result, searched)
                bar.update()
            rest = options.seeds if options.search else options.seeds[1:]
            best = min(found, key=found.__getitem__)
            final = training_of(problem, name, steps, data) if options.search else searched
            for seed in rest:
                drawn = batches(problem.text.training, size.batch, size.context, steps, seed)
                data = jnp.asarray(drawn, jnp.int32)
                record(run(problem, final, data, steps, best, seed), final)


def table(rows: list[dict[str, Any]]) -> str:
    """By device and length of runs: each optimizer's best rate, by the median over its seeds."""
    text = []
    kinds = dict.fromkeys((row["device"], row["steps"]) for row in rows)
    for device, steps in sorted(kinds, key=lambda kind: -kind[1]):
        here = [row for row in rows if (row["device"], row["steps"]) == (device, steps)]
        best = {}
        for name in dict.fromkeys(row["optimizer"] for row in here):
            own: dict[float, list[Any]] = {}
            for row in here:
                if row["optimizer"] == name and row["final"] is not None:
                    own.setdefault(row["rate"], []).append(row)
            if own:
                best[name] = min(own.values(), key=_median)
        target = _median(best["adamw"]) if "adamw" in best else -math.inf
        text += [
            f"\n{steps} steps on {device}\n",
            "| optimizer | rate | held-out loss | steps to AdamW's loss | seconds to it "
            "| ms a step | state, MB | peak, MB | compile, s |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for name, own in sorted(best.items(), key=lambda item: _median(item[1])):
            first = own[0]
            hit = next((point for point in first["curve"] if point[2] <= target), None)
            reached, seconds = ("-", "-") if hit is None else (hit[0], f"{hit[1]:.1f}")
            text.append(
                f"| {name} | {first['rate']:g} | {_median(own):.4f} ({len(own)}) | {reached} "
                f"| {seconds} | {np.median([r['milliseconds'] for r in own]):.2f} "
                f"| {first['state_bytes'] / 1e6:.1f} | {first['peak_bytes'] / 1e6:.0f} "
                f"| {first['compile_seconds']:.0f} |"
            )
    return "\n".join(text)


def _median(rows: list[dict[str, Any]]) -> float:
    return statistics.median(row["final"] for row in rows)


if __name__ == "__main__":
    main()
