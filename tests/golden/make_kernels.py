"""What PyTorch computes for single calls of aten operators. Run in the oracle environment: python tests/golden/make_kernels.py tests/data/kernels.txt

For each case:  case NAME TOLERANCE
                input|attribute NAME SHAPE uniform LOW HIGH SEED        (as graph_builder.h reads them)
                graph text as torch.fx prints it
                output SHAPE VALUES                                     (hexadecimal floats)
Tolerance 0: float32 results, to be met exactly; else double precision results and the relative error allowed.
"""
import sys
import numpy as np, torch

M = (1 << 64) - 1


def uniform(shape, low, high, seed):
    i = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + i * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float64) * 2.0**-24
    return torch.from_numpy((low + (high - low) * u).astype(np.float32).reshape(shape))


class Tensor:
    """An operand: an input of the graph, or (attribute=True) a constant of it."""
    seed = 100

    def __init__(self, *shape, low=-1.0, high=1.0, attribute=False):
        Tensor.seed += 1
        self.shape, self.low, self.high, self.attribute, self.seed = shape, low, high, attribute, Tensor.seed
        self.value = uniform(shape, low, high, self.seed)


def shape_text(shape):
    return "x".join(map(str, shape)) or "scalar"


out = open(sys.argv[1], "w")
count = 0


def case(target, *args, tolerance=0.0, **keywords):
    global count
    count += 1
    names, lines = {}, []

    def name_of(t):
        if t not in names:
            names[t] = f"t{len(names)}"
            kind = "attribute" if t.attribute else "input"
            print(f"{kind} {names[t]} {shape_text(t.shape)} uniform {t.low} {t.high} {t.seed}", file=out)
            lines.append(f"    %{names[t]} : [num_users=1] = {'get_attr' if t.attribute else 'placeholder'}[target={names[t]}]")
        return "%" + names[t]

    def text(a):
        if isinstance(a, Tensor): return name_of(a)
        if isinstance(a, (list, tuple)): return "[" + ", ".join(map(text, a)) + "]"
        return str(a)

    def value(a, dtype):
        if isinstance(a, Tensor): return a.value.to(dtype)
        if isinstance(a, (list, tuple)): return [value(v, dtype) for v in a]
        return a

    op = torch.ops
    for part in target.split("."): op = getattr(op, part)
    print(f"case {target}_{count} {tolerance}", file=out)
    arguments = ", ".join(map(text, args)) + ("," if len(args) == 1 else "")
    kwargs = ", ".join(f"{k}: {v}" for k, v in keywords.items())
    dtype = torch.float64 if tolerance else torch.float32
    result = op(*[value(a, dtype) for a in args], **keywords)
    several = isinstance(result, (list, tuple))
    results = list(result) if several else [result]
    lines.append(f"    %r : [num_users={len(results)}] = call_function[target=torch.ops.{target}](args = ({arguments}), kwargs = {{{kwargs}}})")
    for i in range(len(results) if several else 0):
        lines.append(f"    %item_{i} : [num_users=1] = call_function[target=operator.getitem](args = (%r, {i}), kwargs = {{}})")
    returned = ", ".join(f"item_{i}" for i in range(len(results))) if several else "r"
    print("graph():", *lines, f"    return ({returned},)", sep="\n", file=out)
    for r in results:
        values = " ".join(float(v).hex() for v in r.double().reshape(-1))
        print(f"output {shape_text(r.shape)} {values}", file=out)


A = "aten."
W = dict(attribute=True)
CONV = dict(tolerance=3e-7)
case(A + "conv2d.default", Tensor(1, 3, 9, 8), Tensor(5, 3, 3, 3, **W), Tensor(5, **W), [2, 2], [1, 1], **CONV)
case(A + "conv2d.default", Tensor(1, 3, 9, 8), Tensor(5, 3, 3, 3), Tensor(5), [2, 1], [1, 0], **CONV)
case(A + "conv2d.default", Tensor(2, 9, 7, 6), Tensor(10, 9, 1, 1, **W), None, **CONV)
case(A + "conv2d.default", Tensor(1, 17, 12, 4), Tensor(1, 17, 1, 1, **W), **CONV)
case(A + "conv2d.default", Tensor(1, 6, 9, 9), Tensor(4, 3, 3, 3, **W), Tensor(4, **W), [1, 1], [2, 2], [2, 2], 2, **CONV)
case(A + "conv2d.default", Tensor(1, 10, 9, 9), Tensor(9, 10, 3, 3, **W), Tensor(9, **W), [1, 1], [2, 2], [2, 2], 1, **CONV)
case(A + "conv2d.default", Tensor(1, 8, 9, 7), Tensor(8, 1, 5, 3, **W), None, [2, 2], [2, 1], [1, 1], 8, **CONV)
case(A + "conv_transpose2d.input", Tensor(1, 9, 4, 5), Tensor(9, 7, 2, 2, **W), Tensor(7, **W), [2, 2], **CONV)
case(A + "conv_transpose2d.input", Tensor(2, 4, 4, 5), Tensor(4, 3, 3, 3, **W), Tensor(6, **W), [2, 3], [1, 0], [1, 2], 2, [1, 2], **CONV)
case(A + "linear.default", Tensor(2, 3, 11), Tensor(7, 11, **W), Tensor(7, **W), **CONV)
case(A + "linear.default", Tensor(4, 5), Tensor(3, 5), **CONV)
case(A + "batch_norm.default", Tensor(2, 5, 3, 4), Tensor(5, **W), Tensor(5, **W), Tensor(5, **W), Tensor(5, low=0.2, high=2.0, **W), False, 0.03, 0.001, True, tolerance=1e-6)
case(A + "batch_norm.default", Tensor(2, 5, 3, 4), None, None, Tensor(5, **W), Tensor(5, low=0.2, high=2.0, **W), False, 0.1, 1e-5, True, tolerance=1e-6)
case(A + "layer_norm.default", Tensor(2, 5, 6), [6], Tensor(6, **W), Tensor(6, **W), tolerance=1e-6)
case(A + "layer_norm.default", Tensor(2, 5, 6), [5, 6], None, None, 0.01, tolerance=1e-6)
wide = dict(low=-8.0, high=8.0)
for op in ("relu.default", "relu_.default", "relu6.default", "hardtanh.default", "hardsigmoid.default", "hardsigmoid_.default", "hardswish.default"):
    case(A + op, Tensor(3, 50, **wide))
case(A + "hardtanh.default", Tensor(3, 50, **wide), -2.5, 1.5)
case(A + "clamp.default", Tensor(3, 50, **wide), -1, 2.5)
case(A + "clamp.default", Tensor(3, 50, **wide), None, 2)
case(A + "clip.default", Tensor(3, 50, **wide), 0.25)
case(A + "leaky_relu.default", Tensor(3, 50, **wide))
case(A + "leaky_relu_.default", Tensor(3, 50, **wide), 0.2)
for op in ("sigmoid.default", "silu.default"):
    for span in (8.0, 60.0): case(A + op, Tensor(4, 50, low=-span, high=span), tolerance=1.3e-7)
case(A + "gelu.default", Tensor(4, 50, low=-3.0, high=6.0), tolerance=3e-6)
case(A + "gelu.default", Tensor(4, 50, low=-2.0, high=6.0), tolerance=3e-6, approximate="tanh")
case(A + "softmax.int", Tensor(1, 17, 5, 4, **wide), 1, tolerance=4e-7)
case(A + "softmax.int", Tensor(2, 70, low=-40.0, high=40.0), -1, tolerance=4e-7)
case(A + "softmax.int", Tensor(3, 2, 2, **wide), 0, tolerance=4e-7)
for op in ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "add_.Tensor"):
    case(A + op, Tensor(2, 3, 4), Tensor(2, 3, 4, low=0.5, high=3.0))
    case(A + op, Tensor(2, 3, 4), Tensor(3, 1, low=0.5, high=3.0) if op[3] != "_" else Tensor(3, 1))
    case(A + op, Tensor(2, 3, 4), 0.3)
case(A + "mul.Tensor", Tensor(1, 6, 4), Tensor(6, 1))
case(A + "mul.Tensor", Tensor(1), Tensor(1, 8, 3, 3))
case(A + "sub.Tensor", Tensor(4, 1, 3), Tensor(1, 5, 1))
case(A + "add.Tensor", Tensor(2, 5), Tensor(5), alpha=3)
case(A + "sub.Tensor", Tensor(2, 5), Tensor(2, 1), alpha=0.5)
case(A + "max_pool2d.default", Tensor(1, 10, 8, 9), [5, 5], [1, 1], [2, 2])
case(A + "max_pool2d.default", Tensor(2, 3, 8, 9), [3, 2], [2, 2], [1, 1])
case(A + "max_pool2d.default", Tensor(2, 3, 8, 9), [3, 3], [2, 2], [0, 0], [1, 1], True)
case(A + "max_pool2d.default", Tensor(2, 3, 8, 9), [2, 2])
case(A + "max_pool2d.default", Tensor(2, 3, 8, 9), [3, 2], [1, 2], [1, 0], [2, 1])
case(A + "avg_pool2d.default", Tensor(2, 3, 8, 9), [2, 2])
case(A + "avg_pool2d.default", Tensor(2, 3, 8, 9), [3, 3], [2, 2], [1, 1])
case(A + "avg_pool2d.default", Tensor(2, 3, 8, 9), [3, 3], [2, 2], [1, 1], False, False)
case(A + "avg_pool2d.default", Tensor(2, 3, 8, 9), [3, 3], [2, 2], [1, 1], True, True)
case(A + "avg_pool2d.default", Tensor(2, 3, 8, 9), [3, 3], [2, 2], [0, 1], False, True, 7)
case(A + "adaptive_avg_pool2d.default", Tensor(2, 3, 8, 9), [1, 1], tolerance=1e-6)
case(A + "adaptive_avg_pool2d.default", Tensor(2, 3, 8, 9), [3, 4], tolerance=1e-6)
case(A + "mean.dim", Tensor(2, 3, 8, 9), [2, 3], True, tolerance=1e-6)
case(A + "mean.dim", Tensor(2, 3, 8, 9), [-1, 0], tolerance=1e-6)
case(A + "sum.default", Tensor(2, 3, 4, low=0.0), tolerance=1e-6)
for target in ("cat.default", "concat.default"):
    case(A + target, [Tensor(1, 2, 3), Tensor(1, 4, 3), Tensor(1, 1, 3)], 1)
case(A + "cat.default", [Tensor(2, 3), Tensor(1, 3)])
case(A + "cat.default", [Tensor(1, 2, 3), Tensor(1, 2, 5)], -1)
case(A + "stack.default", [Tensor(2, 3), Tensor(2, 3)], -1)
case(A + "stack.default", [Tensor(2, 3), Tensor(2, 3)], 1)
case(A + "slice.Tensor", Tensor(2, 7, 3), 1, 1, 6, 2)
case(A + "slice.Tensor", Tensor(2, 4), -1, 2, 4)
case(A + "slice.Tensor", Tensor(2, 7, 3), 1, -3, 9223372036854775807)
case(A + "select.int", Tensor(2, 7, 3), 1, -2)
case(A + "select.int", Tensor(2, 7), 0, 1)
case(A + "split.Tensor", Tensor(1, 5, 7), 3, -1)
case(A + "split_with_sizes.default", Tensor(6, 4), [1, 3, 2])
case(A + "reshape.default", Tensor(1, 6, 4), [-1, 2, 3, 4])
case(A + "view.default", Tensor(2, 6), [3, 4])
case(A + "flatten.using_ints", Tensor(2, 3, 4, 5), 2)
case(A + "permute.default", Tensor(1, 4, 17, 6), [0, 2, 3, 1])
case(A + "permute.default", Tensor(2, 30, 41), [0, 2, 1])
case(A + "permute.default", Tensor(2, 3, 4, 5), [3, 1, 0, 2])
case(A + "permute.default", Tensor(2, 3, 4), [0, 1, 2])
case(A + "transpose.int", Tensor(2, 3, 4, 5), 1, -1)
case(A + "squeeze.dim", Tensor(2, 1, 4), 1)
case(A + "unsqueeze.default", Tensor(2, 4), -1)
case(A + "pixel_shuffle.default", Tensor(2, 12, 3, 2), 2)
case(A + "contiguous.default", Tensor(2, 3))
case(A + "to.dtype", Tensor(2, 3), torch.float32)
case(A + "dropout.default", Tensor(2, 3), 0.5, False)
case(A + "meshgrid.indexing", [Tensor(3), Tensor(4)], indexing="ij")
case(A + "arange.default", 7, dtype=torch.float32)
case(A + "full.default", [2, 3], 8.5, dtype=torch.float32)
