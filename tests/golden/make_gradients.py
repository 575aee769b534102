"""PyTorch's gradients of single calls, above all at kinks and ties. Run in the oracle environment:
python tests/golden/make_gradients.py tests/data/gradients.txt

For each case:  call TARGET(ARGUMENTS) KEYWORDS            (as operator_call.h reads them)
                input SHAPE uniform LOW HIGH SEED | input SHAPE values V...
                output SHAPE uniform LOW HIGH SEED          the gradient of an output
                gradient SHAPE VALUES                       of each input, hexadecimal; "none": PyTorch has none (running statistics)
PyTorch computes in double, from values that float32 holds exactly.
"""
import sys
import numpy as np, torch

inf, nan = float("inf"), float("nan")
out = open(sys.argv[1], "w")
seed = 100


def uniform(shape, low, high, seed):
    i = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + i * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float64) * 2.0**-24
    return torch.from_numpy((low + (high - low) * u).astype(np.float32).reshape(shape)).double()


def shape_text(shape):
    return "x".join(map(str, shape)) or "scalar"


def random(kind, shape, low, high):
    global seed
    seed += 1
    print(f"{kind} {shape_text(shape)} uniform {low} {high} {seed}", file=out)
    return uniform(shape, low, high, seed)


def case(target, *args, low=-1.0, high=1.0, constants=0, **keywords):
    """args: tuples are shapes of random operands, tensors are operands with these values, [tuples] lists of operands; the rest as it is.
    The last `constants` operands have no gradient."""
    operands, pending = [], []

    def text(a):
        if isinstance(a, (tuple, torch.Tensor)):
            pending.append(a)
            return "%" + chr(ord("a") + len(pending) - 1)
        if isinstance(a, list): return "[" + ", ".join(map(text, a)) + "]"
        return str(a)

    arguments = ", ".join(map(text, args)) + ("," if len(args) == 1 else "")
    print(f"call {target}({arguments}) " + ", ".join(f"{k}: {v}" for k, v in keywords.items()), file=out)
    for a in pending:
        if isinstance(a, tuple):
            operands.append(random("input", a, low, high))
        else:
            operands.append(a.double())
            print("input", shape_text(a.shape), "values", *[float(v) for v in a.reshape(-1)], file=out)
        if len(operands) <= len(pending) - constants: operands[-1].requires_grad_()
    left = list(operands)

    def value(a):
        if isinstance(a, (tuple, torch.Tensor)): return left.pop(0)
        if isinstance(a, list): return [value(v) for v in a]
        return a

    op = torch.ops
    for part in target.split("."): op = getattr(op, part)
    results = op(*[value(a) for a in args], **keywords)
    if not isinstance(results, (list, tuple)): results = [results]
    gradients = [random("output", tuple(r.shape), -1.0, 1.0) for r in results]
    torch.autograd.backward(results, gradients)
    for g in [o.grad for o in operands]:
        if g is None: print("gradient none", file=out)
        else: print("gradient", shape_text(g.shape), *[float(v).hex() for v in g.reshape(-1)], file=out)


def row(*values):
    return torch.tensor(values, dtype=torch.float32)


A = "aten."
# kinks; NaN too, but for values that are infinite where PyTorch's own result is NaN by accident
around = lambda *kinks: row(*[k + d for k in kinks for d in (-1.0, -2.0**-20, 0.0, 2.0**-20, 1.0)], -0.0, nan)
case(A + "relu.default", around(0))
case(A + "relu.default", row(-inf, inf))
case(A + "relu6.default", around(0, 6))
case(A + "hardtanh.default", around(-1, 1))
case(A + "hardtanh.default", around(-2.5, 1.5), -2.5, 1.5)
case(A + "clamp.default", around(-1, 2.5), -1, 2.5)
case(A + "clamp.default", around(-1, 2), None, 2)
case(A + "clamp.default", around(-1, 2), -1)
case(A + "clip.default", around(-1, 1), -1, 1)
case(A + "hardsigmoid.default", around(-3, 3))
case(A + "hardswish.default", around(-3, 3))
case(A + "leaky_relu.default", around(0))
case(A + "leaky_relu.default", around(0), 0.25)
for op in ("sigmoid.default", "silu.default", "gelu.default"):
    case(A + op, row(-100.0, -80.0, -20.0, -0.0, 0.0, 20.0, 80.0, 100.0, nan))
    case(A + op, (4, 6), low=-6.0, high=6.0)
case(A + "gelu.default", (4, 6), low=-6.0, high=6.0, approximate="tanh")
case(A + "gelu.default", row(-100.0, -20.0, 0.0, 20.0, 100.0, nan), approximate="tanh")
# ties
ties = torch.tensor([0, 1, 1, 0, 2, 2, 1, 1, 1, 2, 2, 0, 0, 1, 0, 0, 0, 0, 2, 1, 2, 2, 2, 2, 2], dtype=torch.float32).reshape(1, 1, 5, 5)
broken = ties.clone()
broken[0, 0, 1, 1], broken[0, 0, 3, 3], broken[0, 0, 0, 4] = nan, nan, inf
lowest = torch.full((1, 1, 4, 4), -inf)
for x in (ties, broken, lowest):
    case(A + "max_pool2d.default", x, [3, 3], [1, 1], [1, 1])
    case(A + "max_pool2d.default", x, [2, 2])
    case(A + "max_pool2d.default", x, [3, 2], [2, 1], [1, 1], [1, 2], True)
# the rest once or twice
case(A + "conv2d.default", (1, 3, 5, 4), (2, 3, 3, 3), (2,), [2, 2], [1, 1])
case(A + "conv2d.default", (2, 4, 5, 5), (4, 2, 3, 2), (4,), [1, 2], [2, 1], [2, 1], 2)
case(A + "conv_transpose2d.input", (1, 3, 3, 2), (3, 2, 2, 2), (2,), [2, 2])
case(A + "conv_transpose2d.input", (2, 4, 3, 2), (4, 1, 3, 3), (2,), [2, 3], [1, 0], [1, 2], 2, [1, 2])
case(A + "linear.default", (2, 3, 4), (3, 4), (3,))
case(A + "batch_norm.default", (2, 3, 2, 2), (3,), (3,), (3,), (3,), False, 0.03, 0.001, True, low=0.2, high=2.0, constants=2)
case(A + "layer_norm.default", (3, 2, 4), [2, 4], (2, 4), (2, 4))
case(A + "softmax.int", (2, 7, 2), 1, low=-5.0, high=5.0)
for op in ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor"):
    case(A + op, (2, 3, 4), (3, 1), low=0.5, high=3.0)
    case(A + op, (2, 1), (3, 1, 4), low=0.5, high=3.0)
case(A + "sub.Tensor", (2, 3), (3,), alpha=2)
case(A + "avg_pool2d.default", (1, 2, 5, 6), [3, 3], [2, 2], [1, 1])
case(A + "avg_pool2d.default", (1, 2, 5, 6), [3, 3], [2, 2], [1, 1], True, False)
case(A + "avg_pool2d.default", (1, 2, 5, 6), [3, 3], [2, 2], [0, 1], False, True, 7)
case(A + "adaptive_avg_pool2d.default", (1, 2, 5, 6), [3, 4])
case(A + "mean.dim", (2, 3, 4), [2, 0], True)
case(A + "sum.default", (2, 3))
case(A + "cat.default", [(2, 1, 2), (2, 3, 2)], 1)
case(A + "stack.default", [(2, 3), (2, 3)], 1)
case(A + "slice.Tensor", (2, 7, 2), 1, 1, 6, 2)
case(A + "select.int", (2, 3, 2), 1, -1)
case(A + "split.Tensor", (2, 5), 2, 1)
case(A + "split_with_sizes.default", (4, 2), [1, 3])
case(A + "permute.default", (2, 3, 4), [2, 0, 1])
case(A + "transpose.int", (2, 3, 4), 0, -1)
case(A + "reshape.default", (2, 6), [3, 4])
case(A + "pixel_shuffle.default", (1, 8, 2, 3), 2)
case(A + "meshgrid.indexing", [(2,), (3,)], indexing="ij")
