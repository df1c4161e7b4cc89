"""What a compiled program does on one device: products and collectives, loops multiplied out."""

import collections
import dataclasses
import functools
import math
import re

import numpy as np

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8}
_SHAPE = re.compile(r"\b(pred|bf16|[suf]\d+)\[([\d,]*)\]")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


@dataclasses.dataclass
class Totals:
    """What one device does.

    Attributes:
      flops: Floating point operations of all products.
      passes: The same, each times the passes that a matrix unit needs: six for float32 products
        at precision "highest", which are sums of products of bfloat16 parts.
      memory: Bytes read and written, of arrays that are not in a core's own memory; a slice of
        an array counts as the slice.
      channels: The collectives.
    """

    flops: float = 0.0
    passes: float = 0.0
    memory: float = 0.0
    #: Channel -> (kind, bytes, times): an asynchronous collective appears in several places.
    channels: dict = dataclasses.field(default_factory=dict)

    def add(self, other, times=1):
        self.flops += times * other.flops
        self.passes += times * other.passes
        self.memory += times * other.memory
        for channel, (kind, size, count) in other.channels.items():
            self.meet(channel, kind, size, times * count)

    def meet(self, channel, kind, size, count):
        known = self.channels.get(channel, (kind, 0, 0))
        self.channels[channel] = (kind, max(size, known[1]), max(count, known[2]))

    @property
    def collectives(self):
        """Kind -> (how many, their bytes in all, the largest)."""
        result = {}
        for kind, size, count in self.channels.values():
            many, total, largest = result.get(kind, (0, 0, 0))
            result[kind] = (many + count, total + count * size, max(largest, size))
        return result


def read(text):
    """Totals of an HLO module's entry computation."""
    computations, entry = _computations(text)
    done = {}

    def total(name):
        if name not in done:
            done[name] = result = Totals()
            shapes = {line[0]: line[1] for line in computations[name]}
            for line in computations[name]:
                _add(result, line, shapes, total, trips)
                result.memory += _traffic(line, shapes, computations)
        return done[name]

    def trips(condition, body):
        """The number that a loop's condition compares its counter with, by the counter's step."""
        lines = {line[0]: line for line in computations[condition]}
        limits = [int(line[4]) for line in lines.values() if line[2] == "constant"]
        counter = [re.search(r"index=(\d+)", line[4]) for line in lines.values()]
        counter = [int(found.group(1)) for found in counter if found]
        lines = {line[0]: line for line in computations[body]}
        root = computations[body][-1][3]
        step = 1
        if counter and len(root) > counter[0] and root[counter[0]] in lines:
            line = lines[root[counter[0]]]
            steps = [lines[name] for name in line[3] if name in lines]
            steps = [int(each[4]) for each in steps if each[2] == "constant"]
            step = steps[0] if line[2] == "add" and steps else 1
        return max(limits, default=1) // max(step, 1)

    return total(entry)


def opcodes(text):
    """How often each opcode is in an HLO module, in all its computations; a Counter.

    Tables of files and stack frames, and heads of computations, are no instructions.
    """
    computations, _ = _computations(text)
    return collections.Counter(line[2] for lines in computations.values() for line in lines)


def operations(text):
    """The number of operations in a StableHLO module: lines that define a value, or return some."""
    return len(
        re.findall(r"^\s+(?:%[\w:]+ = |(?:stablehlo\.|func\.)?return\b)", text, re.MULTILINE)
    )


def _add(result, line, shapes, total, trips):
    _, shape, opcode, operands, rest = line
    base = opcode.removesuffix("-start")
    if opcode in ("dot", "convolution"):
        flops = _product(shape, opcode, operands, rest, shapes)
        result.flops += flops
        wide = "f32" in shapes.get(operands[0], "") and "f32" in shapes.get(operands[1], "")
        exact = "operand_precision={highest" in rest
        result.passes += flops * (6 if wide and exact else 1)
    elif base in COLLECTIVES:
        size = _size(shape)
        if opcode.endswith("-start") and base in ("all-gather", "collective-permute"):
            size = max(_sizes(shape), default=0)  # (operand, result)
        if base == "reduce-scatter":  # what is sent is the operand's size
            size = sum(_size(shapes.get(name, "")) for name in operands) or size
        channel = re.search(r"channel_id=(\d+)", rest)
        result.meet(channel.group(1) if channel else line[0], base, size, 1)
    elif opcode == "while":
        known = re.search(r"known_trip_count[^\d]*(\d+)", rest)
        body = re.search(r"body=%?([\w.\-]+)", rest).group(1)
        condition = re.search(r"condition=%?([\w.\-]+)", rest).group(1)
        result.add(total(body), int(known.group(1)) if known else trips(condition, body))
    elif opcode == "conditional":
        names = re.search(r"branch_computations=\{([^}]*)\}", rest)
        found = (
            re.findall(r"%?([\w.\-]+)", names.group(1))
            if names
            else re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", rest)
        )
        result.add(max((total(name) for name in found), key=lambda each: each.flops))
    else:
        for name in re.findall(r"calls=%?([\w.\-]+)", rest):
            inner = total(name)
            result.add(dataclasses.replace(inner, memory=0.0))  # a fusion's own are in registers
        if opcode == "call":
            result.add(total(re.search(r"to_apply=%?([\w.\-]+)", rest).group(1)))


_NO_TRAFFIC = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "iota",
    "partition-id",
    "replica-id",
    "after-all",
    "opt-barrier",
)


_PASSED_ON = ("tuple", "bitcast", *COLLECTIVES)


def _traffic(line, shapes, computations):
    """Bytes between a core and its memory of one instruction that is not inside of a fusion."""
    _, shape, opcode, operands, rest = line
    if opcode in _NO_TRAFFIC or opcode.endswith(("-done", "-update")):
        return 0
    if opcode in ("slice", "dynamic-slice"):
        return _moved(_size(shape), shapes.get(operands[0], ""), shape)
    if opcode == "dynamic-update-slice":
        update = shapes.get(operands[1], "")
        return _moved(_size(update), update, shape)
    if opcode in ("copy-start", "slice-start"):  # asynchronous: (to, from) and (from, to)
        moved = _arrays(shape)[0 if opcode == "copy-start" else 1][0]
        return sum(moved for _, outside in _arrays(shape)[:2] if outside)
    called = re.search(r"calls=%?([\w.\-]+)", rest)
    if not called or called.group(1) not in computations:
        return _outer(shape) + sum(_outer(shapes.get(name, "")) for name in operands)
    inside = computations[called.group(1)]
    if opcode == "async-start":
        own = {each[0]: each[1] for each in inside}
        return sum(_traffic(each, own, computations) for each in inside)
    inner = {each[0]: each for each in inside}
    read = 0
    for each in inside:
        if each[2] != "parameter":
            continue
        index = int(each[4]) if each[4].isdigit() else 0
        outer = _outer(shapes.get(operands[index], "")) if index < len(operands) else 0
        users = [user for user in inside if each[0] in user[3]]
        if all(user[2] in _PASSED_ON for user in users):
            continue  # a buffer of a collective that goes on while this runs
        if users and all(_slices(user, each[0]) for user in users):
            outer = min(outer, sum(_size(user[1]) for user in users if "update" not in user[2]))
        read += outer
    root = inside[-1]
    results = [inner[name] for name in root[3] if name in inner] if root[2] == "tuple" else [root]
    write = 0
    for each in results:
        if each[2] in ("parameter", *COLLECTIVES):
            continue
        update = each[2] == "dynamic-update-slice"
        write += _size(inner[each[3][1]][1]) if update else _size(each[1])
    return read + min(write, _outer(shape))


def _slices(user, name):
    _, _, opcode, operands, _ = user
    return opcode in ("dynamic-slice", "dynamic-update-slice", "gather") and operands[0] == name


def _moved(size, source, target):
    """Bytes for a part of one array that becomes, or goes into, another one."""
    return sum(size for shape in (source, target) if _outer(shape))


def _outer(shape):
    """Bytes of what is not in a core's own memory."""
    return sum(size for size, outside in _arrays(shape) if outside)


def _arrays(shape):
    """For each array: its bytes, and whether it is outside of a core's own memory."""
    found = re.findall(r"(pred|bf16|[suf]\d+)\[([\d,]*)\](\{[^}]*\})?", shape)
    return [(_size(f"{kind}[{dims}]"), "S(1)" not in layout) for kind, dims, layout in found]


def _computations(text):
    computations, entry, current = {}, None, None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head and not line.startswith(" "):
            current = head.group(2)
            computations[current] = []
            entry = current if head.group(1) else entry
        elif current and (found := _LINE.match(line)):
            parsed = _instruction(found.group(3))
            if parsed:
                computations[current].append((found.group(2), *parsed))
    return computations, entry


def _instruction(text):
    """(shape, opcode, operands, the rest)."""
    if text.startswith("("):
        depth, place = 0, -1
        while place < 0 or depth:
            place += 1
            depth += (text[place] == "(") - (text[place] == ")")
        shape, rest = text[: place + 1], text[place + 1 :]
    else:
        shape, _, rest = text.partition(" ")
    found = re.match(r"\s*([\w\-]+)\(", rest)
    if not found:
        return None
    arguments, _, tail = rest[found.end() :].partition(")")
    tail = arguments if found.group(1) in ("constant", "parameter") else tail
    return shape, found.group(1), re.findall(r"%([\w.\-]+)", arguments), tail


def _sizes(shape):
    return [
        math.prod(map(int, filter(None, dims.split(",")))) * _BYTES.get(dtype, 4)
        for dtype, dims in _SHAPE.findall(shape)
    ]


def _size(shape):
    return sum(_sizes(shape))


def _dims(shape):
    found = _SHAPE.search(shape)
    return [int(size) for size in found.group(2).split(",") if size] if found else []


def _product(shape, opcode, operands, rest, shapes):
    out = math.prod(_dims(shape))
    if opcode == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest).group(1)
        left = _dims(shapes[operands[0]])
        return 2.0 * out * math.prod(left[int(axis)] for axis in axes.split(",") if axis)
    left, right, target = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", rest).groups()
    inputs, kernel, outputs = (_dims(shapes[operands[0]]), _dims(shapes[operands[1]]), _dims(shape))
    flops = 2.0 * outputs[target.index("b")] * outputs[target.index("f")]
    flops *= kernel[right.index("i")]
    window = re.search(r"window=\{([^}]*)\}", rest)
    options = dict(re.findall(r"(\w+)=([\d_\-x]+)", window.group(1))) if window else {}
    for axis in sorted(label for label in right if label.isdigit()):

        def option(name, default, axis=axis):
            return options[name].split("x")[int(axis)] if name in options else default

        flops *= _meetings(
            inputs[left.index(axis)],
            kernel[right.index(axis)],
            outputs[target.index(axis)],
            int(option("stride", 1)),
            int(option("lhs_dilate", 1)),
            int(option("rhs_dilate", 1)),
            int(option("pad", "0_0").split("_")[0]),
        )
    return flops


@functools.cache
def _meetings(inputs, window, outputs, stride, dilate, window_dilate, pad):
    """How many pairs of an output's place and a window's meet an input: batch axes are windows."""
    place = np.arange(outputs)[:, None] * stride + np.arange(window) * window_dilate - pad
    valid = (place >= 0) & (place <= (inputs - 1) * dilate) & (place % dilate == 0)
    return int(valid.sum())
