"""What Quark's function for trained thresholds (TQTQuantize, quark/torch/kernel/__init__.py, on the CPU) makes of some tensors. Run in the oracle
environment, where its kernels can be compiled:
python tests/golden/make_thresholds.py tests/data/thresholds.txt

For each case, numbers hexadecimal:  case LOG2_THRESHOLD COUNT, then lines "x", "gradient" (of the output), "output", "input_gradient" with COUNT
numbers each, and "threshold_gradient" with one, in float32 and from Quark's formula evaluated in double.
"""
import sys
import numpy as np, torch
import quark.torch.kernel as kernel

out = open(sys.argv[1], "w")


def text(values):
    return " ".join(float(v).hex() for v in values)


def run(x, gradient, log2_threshold, dtype):
    x = torch.tensor(x, dtype=dtype, requires_grad=True)
    t = torch.tensor([log2_threshold], dtype=dtype, requires_grad=True)
    domain = torch.tensor([128.0], dtype=dtype)
    y = kernel.tqt_quantize(x, t, torch.tensor([0], dtype=torch.int), domain, 8)
    y.backward(torch.tensor(gradient, dtype=dtype))
    return y.detach(), x.grad, t.grad


def case(x, log2_threshold):
    x = np.asarray(x, dtype=np.float32)
    gradient = rng.uniform(-1, 1, len(x)).astype(np.float32)
    y, dx, dt = run(x, gradient, log2_threshold, torch.float32)
    _, dx64, dt64 = run(x, gradient, log2_threshold, torch.float64)
    assert torch.equal(dx.double(), dx64), "the same in both"
    print(f"case {float(np.float32(log2_threshold)).hex()} {len(x)}", file=out)
    for name, values in (("x", x), ("gradient", gradient), ("output", y), ("input_gradient", dx)):
        print(name, text(values), file=out)
    print("threshold_gradient", text([dt[0], dt64[0]]), file=out)


rng = np.random.default_rng(7)
for t in (0.0, -2.25, 3.7):
    s = 2.0 ** np.ceil(t) / 128
    # the edges of the range, exact halves of both signs, the middle between the last step and what lies outside
    case(s * np.array([-129, -128.75, -128.5, -128.25, -128, -127.5, -2.5, -1.5, -0.5, -0.25, 0, 0.5, 1.5, 2.5, 126.5, 127, 127.25, 127.5, 128, 300]), t)
for t in (-3.0, -0.6, 0.0, 1.2, 5.0):
    case(rng.normal(0, 1, 64), t)
