"""Compares what train_steps (tests/peers/train_steps.c) wrote with what shared/oracle/train_steps.py did (--tensors).

usage: train_steps.py OURS REFERENCE.json REFERENCE.npz [OTHER.npz]     OURS: folder with fp32.bin, qat_eval.bin, qat.bin and out.txt
OTHER: a second run of the original with another number of threads, its own noise.
"""
import json, sys
import numpy as np


def read(path):
    data, at, result = open(path, "rb").read(), 0, {}
    while at < len(data):
        end = data.index(b"\n", at)
        name, count = data[at:end].decode().rsplit(" ", 1)
        at = end + 1
        result[name] = np.frombuffer(data, "<f4", int(count), at)
        at += 4 * int(count)
    return result


ours, reference, tensors = sys.argv[1], json.load(open(sys.argv[2])), np.load(sys.argv[3])
other = np.load(sys.argv[4]) if len(sys.argv) > 4 else None
lines = [line.split() for line in open(f"{ours}/out.txt")]
expected = {"fp32": reference["fp32_steps"], "qat_eval": [reference["qat_eval_mode_loss"]], "qat": reference["qat_steps"]}
for part, rows in expected.items():
    for k, (line, row) in enumerate(zip([l for l in lines if l[0] == part], rows)):
        got, want = [float(v) for v in line[2:5]], row["classification_iou_dfl_total"][:3]
        print(f"{part} step {k + 1}: loss {float(line[1]):.7f} {row['loss']:.7f} relative {abs(float(line[1]) - row['loss']) / row['loss']:.2e}"
              f"  parts {max(abs(a - b) / b for a, b in zip(got, want)):.2e}")
for part in expected:
    mine, worst, missing, over = read(f"{ours}/{part}.bin"), [], [], 0
    names = [n[len(part) + 1:] for n in tensors.files if n.startswith(part + "/")]
    for name in names:
        want = tensors[f"{part}/{name}"].ravel().astype(np.float64)
        size = np.linalg.norm(want)
        if name not in mine:
            missing.append((name, size))
            continue
        noise = np.linalg.norm(other[f"{part}/{name}"].ravel() - want) / size if other is not None and size else 0
        error = np.linalg.norm(mine[name] - want) / size if size else np.linalg.norm(mine[name])
        worst.append((error, noise, size, name))
    worst.sort(reverse=True)
    errors = np.array([w[0] for w in worst])
    noises = np.array([w[1] for w in worst])
    print(f"{part}: {len(worst)} gradients, median {np.median(errors):.2e} 95 % {np.quantile(errors, .95):.2e} largest {errors.max():.2e}; own noise median "
          f"{np.median(noises):.2e} 95 % {np.quantile(noises, .95):.2e}; missing {len(missing)} (largest {max([m[1] for m in missing], default=0):.2e}), "
          f"extra {len(set(mine) - set(names))}")
    for row in worst[:6]:
        print("   %.2e noise %.2e size %.2e %s" % row)
for when in ("before", "after"):
    want = {n.removesuffix(".scale"): -np.log2(s) for n, s in reference[f"qat_scales_{when}"].items()}
    short = {}
    for name, value in want.items():
        short[name.replace("._weight_quantizer", ".weight").replace("._bias_quantizer", ".bias")] = value
    got = {l[1]: int(l[2]) for l in lines if l[0] == when}
    print(when, "scales:", len(got), "of", len(want), "differ", sum(got.get(n) != v for n, v in short.items()),
          [(n, got.get(n), v) for n, v in short.items() if got.get(n) != v][:5])
