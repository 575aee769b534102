"""Forward pass of the folded FP32 network: binade beside PyTorch, onnxruntime and OpenVINO, in one run.

usage: peers.py CHECKPOINT BUILD [--threads N] [--rounds N] [--cpu-time]

CHECKPOINT: a YOLO-NAS S checkpoint with 80 classes. BUILD: a build folder with bench_forward and the program. Needs torch and super-gradients; onnxruntime
and openvino where present. Everyone runs the same network at 640x640, batch 1, one round after the other; the shortest times count.
--cpu-time counts processor time, which with --threads 1 also compares on a busy machine.
"""
import argparse, os, re, subprocess, sys, tempfile, time

parser = argparse.ArgumentParser()
parser.add_argument("checkpoint"); parser.add_argument("build"); parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=10); parser.add_argument("--cpu-time", action="store_true")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)

import numpy as np, torch

torch.set_num_threads(args.threads)
clock = time.process_time if args.cpu_time else time.perf_counter
image = np.random.default_rng(0).random((1, 3, 640, 640), dtype=np.float32)
runs = {}


def binade():
    command = [f"{args.build}/bench/bench_forward", args.checkpoint, "--threads", str(args.threads), "--rounds", "2", "--alone"] + ["--cpu-time"] * args.cpu_time
    return float(re.search(r"shortest ([\d.]+) ms", subprocess.run(command, capture_output=True, text=True, check=True).stdout)[1])


def timed(function):
    def run():
        best = 1e9
        for _ in range(4):
            start = clock(); function(); best = min(best, clock() - start)
        return best * 1e3
    return run


runs["binade"] = binade
with tempfile.TemporaryDirectory() as folder:
    onnx = f"{folder}/folded.onnx"
    subprocess.run([f"{args.build}/binade", "convert", args.checkpoint, "--form", "folded", "-o", onnx], check=True, stdout=subprocess.DEVNULL)

    from super_gradients.training import models
    x = torch.from_numpy(image)
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=False)
    model = models.get("yolo_nas_s", num_classes=80)
    model.load_state_dict(state.get("net", state), strict=True)
    model.eval(); model.prep_model_for_conversion(input_size=[1, 3, 640, 640])
    for module in model.modules():  # the fully fused form of the re-parameterized blocks
        if hasattr(module, "full_fusion"):
            module.full_fusion()
    torch.set_grad_enabled(False)
    runs["PyTorch, eager"] = timed(lambda: model(x))
    channels_last = x.to(memory_format=torch.channels_last)
    traced = torch.jit.freeze(torch.jit.trace(model, x, check_trace=False))
    for _ in range(3): traced(x)
    runs["PyTorch, JIT frozen"] = timed(lambda: traced(x))
    try:
        optimised = torch.jit.optimize_for_inference(torch.jit.trace(model, x, check_trace=False))
        for _ in range(3): optimised(x)
        runs["PyTorch, JIT optimised"] = timed(lambda: optimised(x))
    except Exception as reason:
        print("PyTorch, JIT optimised:", str(reason).splitlines()[0], file=sys.stderr)
    runs["PyTorch, JIT frozen, channels last"] = timed(lambda: traced(channels_last))

    try:
        import onnxruntime
        options = onnxruntime.SessionOptions(); options.intra_op_num_threads = args.threads
        session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        input_name = session.get_inputs()[0].name
        runs["onnxruntime"] = timed(lambda: session.run(None, {input_name: image}))
    except ImportError:
        pass
    try:
        import openvino
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(onnx), "CPU", {"INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY",
                                                                     "INFERENCE_PRECISION_HINT": "f32"})
        request = compiled.create_infer_request()
        runs["OpenVINO"] = timed(lambda: request.infer([image]))
    except ImportError:
        pass

    best = {name: 1e9 for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            best[name] = min(best[name], run())

print(f"forward of YOLO-NAS S, 640x640, {args.threads} threads, shortest of {args.rounds} rounds, {'processor time' if args.cpu_time else 'time'}")
for name, milliseconds in best.items():
    print(f"  {name:36s} {milliseconds:8.2f} ms   {milliseconds / best['binade']:5.2f} times binade's")
