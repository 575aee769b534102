"""Looks at exported files with ONNX's own checker and with onnxruntime.

usage: python onnx_check.py FILE.onnx ...

For each file: onnx.checker (full check), strict shape inference (which also compares the shapes written in the file), names that are unique,
and onnxruntime without and with all optimizations on random input, and how much the two differ. Where FILE.onnx.values lies beside it (float32:
the inputs, then what the graph computed from them), onnxruntime without optimizations must give the same: differences up to 1e-5, relative for
values above 1. One line each, PASS or FAIL; exit status 1 if any failed. Needs onnx and onnxruntime.
"""
import os
import sys
import numpy as np
import onnx
import onnxruntime

failures = 0


def report(fine, path, what, detail=""):
    global failures
    failures += not fine
    print("PASS" if fine else "FAIL", path, what, detail, flush=True)


def attempt(path, what, action):
    try:
        detail = action()
        report(True, path, what, detail or "")
        return True
    except Exception as e:
        report(False, path, what, repr(e)[:500])
        return False


def session_of(path, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(path, level):
    session = session_of(path, level)
    generator = np.random.default_rng(0)
    feed = {i.name: generator.random(i.shape, dtype=np.float32) for i in session.get_inputs()}
    outputs = session.run(None, feed)
    for declared, output in zip(session.get_outputs(), outputs):
        assert list(output.shape) == list(declared.shape), f"{declared.name}: {output.shape} instead of {declared.shape}"
        assert np.isfinite(output).all(), f"{declared.name} is not finite"
    return outputs


def compare_values(path):
    session = session_of(path, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    numbers, at, feed, worst = np.fromfile(path + ".values", np.float32), 0, {}, 0.0
    for i in session.get_inputs():
        size = int(np.prod(i.shape))
        feed[i.name] = numbers[at : at + size].reshape(i.shape)
        at += size
    for declared, output in zip(session.get_outputs(), session.run(None, feed)):
        expected = numbers[at : at + output.size].reshape(output.shape)
        at += output.size
        worst = max(worst, float((np.abs(output - expected) / np.maximum(1, np.abs(expected))).max()))
        assert worst <= 1e-5, f"{declared.name}: differs by {worst}"
    assert at == numbers.size, f"{numbers.size} values written, {at} expected"
    return f"largest difference {worst:.3g}"


for path in sys.argv[1:]:
    model = onnx.load(path)
    attempt(path, "checker", lambda: onnx.checker.check_model(path, full_check=True))
    attempt(path, "shape inference", lambda: onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True) and None)
    names = [n.name for n in model.graph.node]
    report(len(set(names)) == len(names) and all(names), path, "node names", f"{len(names)} nodes")
    results = {}
    for name, level in (("none", onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL), ("all", onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)):
        attempt(path, f"onnxruntime, optimizations {name}", lambda: results.__setitem__(name, run(path, level)))
    if os.path.exists(path + ".values"):
        attempt(path, "values", lambda: compare_values(path))
    if len(results) == 2:
        differences = [float(np.abs(a - b).max()) if a.size else 0.0 for a, b in zip(results["none"], results["all"])]
        print("     ", path, "largest difference between the two:", max(differences, default=0.0))
sys.exit(1 if failures else 0)
