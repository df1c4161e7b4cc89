"""The authors' PyTorch package on a recorded problem; runs in an environment of its own.

    python benchmarks/_peer_torch.py problem.npz result.json

Needs torch, singd and numpy, and nothing of this project.
"""

import json
import sys
import time

import numpy as np
import torch
from singd.optim.optimizer import SINGD


def run(problem, hyper):
    """The loss before each step, and seconds a step."""
    depth = sum(name.startswith("kernel") for name in problem)
    layers = []
    for i in range(depth):
        kernel, bias = problem[f"kernel{i}"], problem[f"bias{i}"]
        layer = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = SINGD(model, **hyper)
    images = torch.from_numpy(problem["images"])
    losses, seconds = [], []
    for chosen in problem["batches"]:
        begin = time.perf_counter()
        batch = images[chosen]
        optimizer.zero_grad()
        logits = model(batch)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
        loss = loss / len(batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - begin)
    return {"losses": losses, "seconds": seconds}


def main():
    with np.load(sys.argv[1], allow_pickle=False) as archive:
        problem = dict(archive)
    runs = json.loads(str(problem.pop("runs")))
    results = {name: run(problem, hyper) for name, hyper in runs.items()}
    results["versions"] = {"torch": torch.__version__}
    with open(sys.argv[2], "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main()
