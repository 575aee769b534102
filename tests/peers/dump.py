"""Compares a dump with onnxruntime (optimizations off) and with the whole-number formulas of docs/numerics.md, computed here by NumPy.

usage: dump.py MODEL.onnx DUMP_FOLDER

DUMP_FOLDER was written by `binade dump MODEL.onnx IMAGE -o DUMP_FOLDER --accumulators`. onnxruntime is fed the dumped input; the file is given every
QuantizeLinear's and every layer's result as an output.
- Codes: identical in front of every Softmax; outputs that the recipe best computes in float: 1e-5 of the largest value; behind one (whose exponentials differ in the last bits) at most 1e-5 of the values may differ, by one.
- Accumulators: onnxruntime's FP32 result of a layer with an exact sum (section 4) is accumulator * 2^-position.
- Sums, products, functions, pools, concatenation, movement (sections 6 to 10): the codes that NumPy's integers give from the dumped operands are the dumped ones.
Needs onnx, onnxruntime and numpy.
"""
import collections, json, os, sys
import numpy as np, onnx, onnxruntime as ort

model_path, folder = sys.argv[1:3]
model = onnx.load(model_path)
graph = model.graph
index = json.load(open(os.path.join(folder, "dump.json")))
entries = {t["tensor"]: t for t in index["tensors"] if t["dtype"] != "float32"}
load = lambda entry: np.load(os.path.join(folder, entry["file"]))
producer = {o: n for n in graph.node for o in n.output}
readers = collections.defaultdict(list)
for node in graph.node:
    for name in node.input:
        readers[name].append(node)
initializers = {i.name: i for i in graph.initializer}
failures = 0


def report(good, text):
    global failures
    failures += not good
    print(f"{'PASS' if good else 'FAIL'} {text}")


# --- onnxruntime ---

soft = set()  # values that depend on a Softmax
for node in graph.node:
    if node.op_type == "Softmax" or soft.intersection(node.input):
        soft.update(node.output)
final = [o.name for o in graph.output]
wanted = [n for n in entries if n not in initializers and n not in final]
layers = {l["tensor"]: l for l in index["layers"] if l.get("accumulators")}
known = {o.name for o in graph.output}
for name in wanted:
    graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT8, None))
for name in layers:
    if name not in known:
        graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
names = wanted + list(layers) + final
inputs = [t for t in index["tensors"] if t["kind"] == "input"]
theirs = dict(zip(names, session.run(names, {t["tensor"]: load(t) for t in inputs})))
for name in set(entries) & set(initializers):
    theirs[name] = onnx.numpy_helper.to_array(initializers[name])

counts = collections.Counter()
for name, entry in entries.items():
    difference = np.abs(load(entry).astype(int) - theirs[name].astype(int)) if list(theirs[name].shape) == entry["shape"] else None
    place = "behind" if name in soft else "front"
    counts[place + " tensors"] += 1
    if difference is None:
        report(False, f"{name}: shape {theirs[name].shape} instead of {entry['shape']}")
        continue
    counts[place + " values"] += difference.size
    counts[place + " differ"] += int((difference > 0).sum())
    if difference.max(initial=0) > (place == "behind"):
        report(False, f"{name}: differs by up to {difference.max()}")
report(counts["front differ"] == 0, f"{counts['front tensors']} tensors in front of every Softmax: {counts['front differ']} of {counts['front values']} codes differ")
report(counts["behind differ"] <= 1e-5 * max(counts["behind values"], 1),
       f"{counts['behind tensors']} tensors behind one: {counts['behind differ']} of {counts['behind values']} codes differ")
same = checked = 0
for name, layer in layers.items():
    if not layer["exact_in_float32"] or name in soft:
        continue
    position = np.array(layer["accumulator_position"])
    unit = np.ldexp(1.0, -position).reshape([1, -1, 1, 1] if position.ndim else [])
    checked += 1
    same += bool((theirs[name] == np.load(os.path.join(folder, layer["accumulators"])) * unit).all())
report(same == checked and checked > 0, f"{same} of {checked} layers: onnxruntime's sums are the accumulators")
for i, t in enumerate(t for t in index["tensors"] if t["kind"] == "output"):
    ours, difference = load(t), np.abs(load(t) - theirs[final[i]])
    if producer[final[i]].op_type == "DequantizeLinear":
        report((difference > 0).mean() <= 1e-5, f"output {i}: {(difference > 0).sum()} of {difference.size} values differ")
    else:
        furthest = difference.max() / np.abs(ours).max()
        report(furthest <= 1e-5, f"output {i}, computed in float: values differ by up to {furthest:.1e} of the largest")

# --- the formulas ---

rne = lambda x: np.rint(np.asarray(x, np.float64))  # exact: all numbers here are below 2^53
requantize = lambda a, shift: np.clip(rne(np.ldexp(np.asarray(a, np.float64), -shift)), -128, 127).astype(int)


def quantize(x, position):
    return np.clip(rne(np.ldexp(np.asarray(x, np.float64), position)), -128, 127).astype(int)


def constant(name):
    """A constant of the file, without quantizer."""
    node = producer.get(name)
    while node is not None and node.op_type == "Identity":
        name, node = node.input[0], producer.get(node.input[0])
    if node is not None and node.op_type == "Constant":
        return onnx.numpy_helper.to_array(node.attribute[0].t)
    return onnx.numpy_helper.to_array(initializers[name]) if name in initializers else None


def operand(name):
    """Codes less zero point and position of what a node reads; (None, None) where it is not quantized."""
    node = producer.get(name)
    if node is None or node.op_type != "DequantizeLinear":
        return None, None
    code = node.input[0]
    entry = entries.get(code) or merged.get((producer[code].input[0], producer[code].input[1]) if code in producer else None)
    return (load(entry).astype(int) - entry["zero_point"], entry["position"]) if entry and isinstance(entry["position"], int) else (None, None)


# files with a pair for each reader list the first of equal ones
merged = {(producer[n].input[0], producer[n].input[1]): e for n, e in entries.items() if n in producer}
attribute = lambda node, name, otherwise: next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), otherwise)


def max_pool(node, q):
    window, stride = attribute(node, "kernel_shape", None), attribute(node, "strides", [1, 1])
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    q = np.pad(q, [(0, 0), (0, 0), (top, bottom), (left, right)], constant_values=-1000)
    return np.lib.stride_tricks.sliding_window_view(q, window, (2, 3)).max((4, 5))[:, :, :: stride[0], :: stride[1]]


def moved(node, q):
    """What an operator that only moves values makes of the codes: onnxruntime itself moves them, as floats."""
    info = lambda name, shape: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    constants = [onnx.numpy_helper.from_array(constant(n), n) for n in node.input[1:] if n]
    one = onnx.helper.make_graph([node], "one", [info(node.input[0], q.shape)], [info(node.output[0], None)], constants)
    made = onnx.helper.make_model(one, opset_imports=model.opset_import, ir_version=model.ir_version)
    run = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return run.run(None, {node.input[0]: q.astype(np.float32)})[0].astype(int)


def expected(node, out):
    """Codes at position `out`, or None where the operands are not all quantized or the operator is not one of sections 6 to 10."""
    if node.op_type == "Relu" or node.op_type == "Mul" and operand(node.input[1])[0] is None:  # 8, 7: x times a number
        inner = producer.get(node.input[0])
        q, position = operand(node.input[0])
        number = constant(node.input[1]) if node.op_type == "Mul" else None
        if q is None and node.op_type == "Mul" and inner is not None and inner.op_type == "HardSigmoid" and number is not None:
            q, position = operand(inner.input[0])
            if q is None:
                return None
            x = np.ldexp(q.astype(np.float32), -position)
            y = np.clip(x + np.float32(3), np.float32(0), np.float32(6)) / np.float32(6)
            return quantize(y * np.float32(number), out)
        if q is None:
            return None
        if node.op_type == "Relu":
            return requantize(np.maximum(q, 0), position - out)
        return None if number is None else quantize(np.ldexp(q.astype(np.float32), -position) * number, out)
    if node.op_type == "Concat":
        parts = [operand(n) for n in node.input]
        return None if any(q is None for q, _ in parts) else np.concatenate([requantize(q, p - out) for q, p in parts], attribute(node, "axis", 0))
    q, position = operand(node.input[0])
    if q is None:
        return None
    if node.op_type in ("Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "DepthToSpace"):
        return requantize(moved(node, q), position - out)
    if node.op_type == "MaxPool":
        return requantize(max_pool(node, q), position - out)
    if node.op_type in ("Add", "Sub", "Mul"):
        other, other_position = operand(node.input[1])
        if other is None:
            return None
        if node.op_type == "Mul":
            return requantize(q * other, position + other_position - out)
        p = max(position, other_position)
        a, b = q * 2 ** (p - position), other * 2 ** (p - other_position)
        return requantize(a + b if node.op_type == "Add" else a - b, p - out)
    return None


right, wrong = collections.Counter(), collections.Counter()
for name, entry in entries.items():
    node = producer.get(producer[name].input[0]) if name in producer else None
    if node is None or entry["kind"] != "activation":
        continue
    codes = expected(node, entry["position"])
    if codes is None:
        continue
    (right if (codes == load(entry).astype(int) - entry["zero_point"]).all() else wrong)[node.op_type] += 1
for op_type in sorted(set(right) | set(wrong)):
    report(not wrong[op_type], f"{op_type}: {right[op_type]} of {right[op_type] + wrong[op_type]} as the formula says")

# --- 8: tables of functions: every code at several positions ---


def table_of(op_type, position, **attributes):
    x = np.ldexp(np.arange(-128, 128).astype(np.float32), -position)
    info = lambda n: onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [256])
    one = onnx.helper.make_graph([onnx.helper.make_node(op_type, ["x"], ["y"], **attributes)], "one", [info("x")], [info("y")])
    one = onnx.helper.make_model(one, opset_imports=model.opset_import, ir_version=model.ir_version)
    return x, ort.InferenceSession(one.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


different = 0
for position in range(8):
    for out in (7, 8):
        x, y = table_of("HardSigmoid", position, alpha=1 / 6, beta=0.5)
        hard = np.clip(x + np.float32(3), np.float32(0), np.float32(6)) / np.float32(6)
        for factor in (np.float32(1), np.float32(1.0001220703125)):
            different += int((quantize(hard * factor, out) != quantize(y * factor, out)).sum())
        x, y = table_of("Sigmoid", position)
        different += int((quantize((1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32), out) != quantize(y, out)).sum())
report(different == 0, f"sigmoid and hard sigmoid of every code: {different} codes differ from onnxruntime's")
sys.exit(failures > 0)
