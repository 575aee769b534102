"""Writes tests/data/optimizer.txt: parameters after 20 steps of PyTorch's optimizers on drawn gradients.

Run as `python tests/golden/make_optimizer.py` in an environment with torch 2.7.1 (CPU with AVX2; its kernels fuse products and sums there).
Per case: kind (0 AdamW, 1 SGD), momentum, nesterov, max norm of the gradients (0: not clipped); then, as bits in hexadecimal, the parameters at the end.
Two parameters of 301 and 37 elements, decays 0.01 and 0; values and gradients as uniform() draws them, gradients (8u - 4)^3; learning rate
0.001 * (1 - 0.03 step) for AdamW, ten times that for SGD.
"""
import os
import numpy as np
import torch

torch.set_num_threads(1)
SIZES, STEPS = (301, 37), 20
CASES = [(0, 0, False, 0), (0, 0, False, 50), (1, 0, False, 0), (1, 0.9, False, 0), (1, 0.9, True, 0), (1, 0.9, True, 50)]
state = 9


def uniform(count):
    global state
    values = np.empty(count)
    for i in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        values[i] = (state >> 8) / 2**24
    return values


with open(os.path.join(os.path.dirname(__file__), "..", "data", "optimizer.txt"), "w") as f:
    for kind, momentum, nesterov, most in CASES:
        state = 9
        tensors = [torch.nn.Parameter(torch.tensor((2 * uniform(n) - 1).astype(np.float32))) for n in SIZES]
        groups = [dict(params=[t], weight_decay=w) for t, w in zip(tensors, (0.01, 0.0))]
        base = 1e-3 if kind == 0 else 1e-2
        optimizer = torch.optim.SGD(groups, lr=base, momentum=momentum, nesterov=nesterov) if kind else torch.optim.AdamW(groups, lr=base)
        for step in range(STEPS):
            for t in tensors:
                t.grad = torch.tensor(((8 * uniform(t.numel()) - 4) ** 3).astype(np.float32))
            if most:
                torch.nn.utils.clip_grad_norm_(tensors, most)
            for group in optimizer.param_groups:
                group["lr"] = base * (1 - 0.03 * step)
            optimizer.step()
        print(kind, momentum, int(nesterov), most, file=f)
        for t in tensors:
            print(*(f"{v:08x}" for v in t.detach().numpy().view(np.uint32)), file=f)
