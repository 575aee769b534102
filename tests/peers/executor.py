"""Compares the library's fake-quantized executor with onnxruntime (optimizations off) on a quantized file, tensor by tensor.

usage: executor.py RUN_ONNX MODEL.onnx IMAGES_FOLDER [--images N]

RUN_ONNX is the tool built from run_onnx.c. The file is given more outputs: the quantized tensors in front of and behind every Softmax. There both must be identical; behind
Softmax (whose exponentials differ in the last bits) at most 1e-5 of the values may differ: by one quantum directly behind it, by what decoding makes of that in
the final outputs (a step of 1/2 cell is 16 pixels at stride 32). Where nothing is quantized behind Softmax (--recipe best), all that is quantized must be identical,
up to the inputs of Softmax and of the final Sigmoid, and the final outputs are float arithmetic: at most 1e-3 apart. Images are letterboxed to the model's input.
Needs onnx, onnxruntime, numpy and Pillow.
"""
import argparse, glob, os, subprocess, sys, tempfile
import numpy as np, onnx, onnxruntime as ort
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("run_onnx"); parser.add_argument("model"); parser.add_argument("folder"); parser.add_argument("--images", type=int, default=20)
args = parser.parse_args()
model = onnx.shape_inference.infer_shapes(onnx.load(args.model))
shapes = {v.name: v for v in list(model.graph.value_info) + list(model.graph.output)}
before = [n.input[0] for n in model.graph.node if n.op_type in ("Softmax", "Sigmoid")]
soft = {n.output[0] for n in model.graph.node if n.op_type == "Softmax"}
quantized = {n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in soft}
behind = [n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in quantized]
final = [o.name for o in model.graph.output]
scale = {n.output[0]: n.input[1] for n in model.graph.node if n.op_type == "DequantizeLinear"}
constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
more = before + behind
model.graph.output.extend(shapes[name] for name in more)
height, width = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][2:]


def letterbox(path):
    image = Image.open(path).convert("RGB")
    factor = min((width - 4) / image.width, (height - 4) / image.height)
    image = image.resize((max(1, int(image.width * factor)), max(1, int(image.height * factor))))
    canvas = np.full((height, width, 3), 114, np.uint8)
    top, left = (height - image.height) // 2, (width - image.width) // 2
    canvas[top : top + image.height, left : left + image.width] = np.asarray(image)
    return (canvas.astype(np.float64) / 255).astype(np.float32).transpose(2, 0, 1)[None]


paths = sorted(p for p in glob.glob(os.path.join(args.folder, "*")) if p.lower().endswith((".jpg", ".jpeg", ".png")))[: args.images]
if not paths:
    sys.exit(f"{args.folder}: no images")
with tempfile.TemporaryDirectory() as scratch:
    file = os.path.join(scratch, "model.onnx")
    onnx.save(model, file)
    images = [letterbox(p) for p in paths]
    np.concatenate(images).tofile(os.path.join(scratch, "in"))
    subprocess.run([args.run_onnx, file, os.path.join(scratch, "in"), os.path.join(scratch, "out")], check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    ours = np.fromfile(os.path.join(scratch, "out"), np.float32)
    worst, at = {}, 0
    for image in images:
        for name, theirs in zip(final + more, session.run(final + more, {model.graph.input[0].name: image})):
            mine = ours[at : at + theirs.size].reshape(theirs.shape)
            at += theirs.size
            difference = np.abs(mine - theirs)
            different, total, quanta = worst.get(name, (0, 0, 0.0))
            worst[name] = (different + int((difference > 0).sum()), total + theirs.size, max(quanta, float(difference.max() / constants[scale[name]] if name in scale else difference.max())))
fine = at == ours.size
for name, (different, total, quanta) in worst.items():
    allowed = 0 if name in before else 1e-5
    good = different <= allowed * total and (quanta <= 1 or name in final)
    good |= not behind and name in final and quanta <= 1e-3
    fine &= good
    print(f"{'PASS' if good else 'FAIL'} {name}: {different} of {total} values differ, largest {quanta:g} quanta")
print(f"{len(images)} images")
sys.exit(not fine)
