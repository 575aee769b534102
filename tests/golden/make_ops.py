"""Result shapes of the aten operators and folded weights of Quark's modules. Run in the oracle environment: python tests/golden/make_ops.py tests/data/ops

shapes.txt  one call a line: target|argument|.. = result;result or "error". Arguments: T2x3 a tensor, N None, [1,2] integers, 3, 0.5, true, torch.float32,
            {T2x3,T2x3} a list of tensors
fold.txt    name, then lines of hexadecimal float32 bits: weight, bias (or -), batch norm weight, bias, mean, variance (or -), expected weight and bias (or -)
"""
import itertools, random, sys
import numpy as np, torch

out, rng = sys.argv[1], random.Random(5)
T = lambda *s: torch.zeros(s)
cases = []


def text(a):
    if isinstance(a, torch.Tensor): return "T" + ("x".join(map(str, a.shape)) or "scalar")
    if a is None: return "N"
    if isinstance(a, bool): return str(a).lower()
    if isinstance(a, (list, tuple)) and a and isinstance(a[0], torch.Tensor): return "{" + ",".join(map(text, a)) + "}"
    if isinstance(a, (list, tuple)): return "[" + ",".join(map(str, a)) + "]"
    return str(a)


def case(target, *args, **keywords):
    op = torch.ops
    for part in target.split(".")[2:]: op = getattr(op, part)
    try:
        r = op(*args, **keywords)
        if "conv_transpose" in target and r.numel() == 0: raise RuntimeError("empty results of convolutions are refused here")
        r = ";".join("x".join(map(str, t.shape)) or "scalar" for t in (r if isinstance(r, (list, tuple)) else [r]))
    except (RuntimeError, IndexError, ValueError, AssertionError):
        r = "error"
    line = f"{target}|{'|'.join(map(text, args))} = {r}"
    if line not in cases: cases.append(line)


A = "torch.ops.aten."
pick = lambda *c: rng.choice(c)
for _ in range(120):
    g, ci, co, k = pick(1, 1, 2, 3), pick(1, 2, 3), pick(1, 2, 4), (pick(1, 2, 3), pick(1, 3, 5))
    x = T(pick(1, 2), ci * g + pick(0, 0, 0, 0, 1), pick(1, 4, 9, 16), pick(3, 7, 8))
    case(A + "conv2d.default", x, T(co * g, ci, *k), pick(None, T(co * g)), [pick(1, 2), pick(1, 3)], [pick(0, 1), pick(0, 1, 2)], [pick(1, 1, 2), 1], g)
    s = [pick(1, 2), pick(1, 3)]
    case(A + "conv_transpose2d.input", x, T(ci * g, co, *k), pick(None, T(co * g)), s, [pick(0, 1), pick(0, 1)], [pick(0, 0, 1), 0], g, [1, pick(1, 1, 2)])
    kernel = [pick(2, 3, 5), pick(1, 3, 4)]
    window = (kernel, pick([], [2, 2], [1, 3]), [pick(0, 1), 0])
    case(A + "max_pool2d.default", x, *window, [pick(1, 1, 2), 1], pick(True, False))
    case(A + "avg_pool2d.default", x, *window, pick(True, False))
for x in (T(2, 3, 8, 6), T(5,), T(4, 6), T(1, 1, 6400, 4)):
    for d in range(-3, 4):
        case(A + "softmax.int", x, d) if -x.dim() <= d < x.dim() else None
        case(A + "squeeze.dim", x, d)
        case(A + "unsqueeze.default", x, d)
        case(A + "transpose.int", x, 0, d)
        case(A + "flatten.using_ints", x, d)
        case(A + "flatten.using_ints", x, 0, d)
        for i in (0, -1, 3, 100): case(A + "select.int", x, d, i)
        for n in (1, 2, 3): case(A + "split.Tensor", x, n, d) if d >= -x.dim() and d < x.dim() and x.shape[d] <= 8 else None
        for start, end, step in ((None, None, 1), (1, None, 1), (0, 2**63 - 1, 2), (-2, None, 1), (3, 1, 1), (1, -1, 3), (-100, 2, 1)): case(A + "slice.Tensor", x, d, start, end, step)
        case(A + "stack.default", [x, x], d)
        case(A + "cat.default", [x, x, x], d)
        for keep in (True, False): case(A + "mean.dim", x, [d], keep)
for keep in (True, False):
    for dims in ([2, 3], [-1, -2], [0], [], [0, 1, 2, 3]): case(A + "mean.dim", T(2, 3, 4, 5), dims, keep)
case(A + "sum.default", T(2, 3))
for sizes in ([2, 4], [3, 3], [6], [1, 2, 3], [2, 2], [7, -1], [0, 6]): case(A + "split_with_sizes.default", T(2, 6), sizes, 1)
for shape in ([-1], [2, -1], [4, 6], [24], [3, -1, 2], [5, -1], [-1, -1], [1, 24, 1], [0, -1], [2, 3, 4, 2]):
    case(A + "reshape.default", T(2, 3, 4), shape)
    case(A + "view.default", T(2, 3, 4), shape)
case(A + "reshape.default", T(0, 3), [0, 5])
for order in itertools.chain(itertools.permutations(range(3)), ([0, 2, -2], [0, 0, 1], [0, 1], [0, 1, 3])): case(A + "permute.default", T(2, 3, 4), list(order))
case(A + "cat.default", [T(1, 2, 3), T(1, 5, 3), T(1, 1, 3)], 1)
case(A + "cat.default", [T(1, 2, 3), T(1, 5, 4)], 1)
case(A + "cat.default", [T(2, 3), T(4, 3)])
case(A + "stack.default", [T(2, 3), T(2, 4)], 0)
for n in (1, 2, 3): case(A + "pixel_shuffle.default", T(1, 8, 3, 5), n)
for size in ([1, 1], [2, 3]): case(A + "adaptive_avg_pool2d.default", T(2, 3, 7, 9), size)
for a, b in ((T(2, 3, 4), T(4)), (T(2, 1, 4), T(3, 1)), (T(1), T(1, 8, 4, 4)), (T(2, 3), T(2, 4)), (T(5, 1), T(1, 6)), (T(), T(3))):
    for op in ("add", "sub", "mul", "div"): case(A + op + ".Tensor", a, b)
case(A + "add.Tensor", T(2, 3), 0.5)
for x in (T(2, 3, 5), T(5), T(3, 4)): case(A + "linear.default", x, T(7, 5), T(7))
case(A + "batch_norm.default", T(2, 3, 4, 4), T(3), T(3), T(3), T(3), False, 0.03, 0.001, True)
case(A + "layer_norm.default", T(2, 3, 5), [5], T(5), T(5))
for name in ("relu", "relu_", "relu6", "hardtanh", "sigmoid", "hardsigmoid", "silu", "hardswish", "leaky_relu", "gelu"): case(A + name + ".default", T(2, 3))
case(A + "clamp.default", T(2, 3), 0, 1)
case(A + "arange.default", 7)
case(A + "full.default", [3, 1], 8)
case(A + "meshgrid.indexing", [T(3), T(4)], indexing="ij")
open(f"{out}/shapes.txt", "w").write("\n".join(cases) + "\n")

from quark.torch.quantization.nn.modules import QuantConvTransposeBatchNorm2d, QuantizedConvBatchNorm2d

torch.manual_seed(3)
bits = lambda t: "-" if t is None else " ".join("%08x" % v for v in t.detach().contiguous().view(-1).numpy().view(np.uint32))
with open(f"{out}/fold.txt", "w") as f:
    for name, cls, base, bias in (("conv", QuantizedConvBatchNorm2d, torch.nn.Conv2d(3, 11, 3, bias=True), True), ("conv", QuantizedConvBatchNorm2d, torch.nn.Conv2d(2, 5, 1, bias=False), False),
                                  ("transposed", QuantConvTransposeBatchNorm2d, torch.nn.ConvTranspose2d(3, 7, 2, bias=True), True)):
        bn = torch.nn.BatchNorm2d(base.out_channels, eps=1e-3, momentum=0.03)
        for t, lo, hi in ((bn.weight, -2, 2), (bn.bias, -1, 1), (bn.running_mean, -1, 1), (bn.running_var, 0, 3)): t.data.uniform_(lo, hi)
        module = cls.from_float(base.eval(), bn.eval(), None).eval()
        weight, folded_bias = module.get_fused_float_param()
        print(name, "x".join(map(str, base.weight.shape)), file=f)
        for t in (base.weight, base.bias, bn.weight, bn.bias, bn.running_mean, bn.running_var, weight, folded_bias): print(bits(t), file=f)
