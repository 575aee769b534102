"""Forward passes of binade (FP32, fake-quantized, INT8) beside onnxruntime, OpenVINO (FP32 and QDQ each), PyTorch (eager, JIT) and Quark, in one run.

usage: bench/run --model NAME=CHECKPOINT[,INT8.onnx] ... [--python COMMAND] ... [--oracle FOLDER] [--program binade] [--batch 1,8] [--threads 1,2]
                 [--rounds 5] [--cpu-time] [--only WORD] ... [--data DIR] [--work DIR] [--json FILE] [--svg FILE]

Everyone gets the same network at the same size: FP32 with everything folded, INT8 as the QDQ file that `binade quantize` makes of the checkpoint (unless
one is given). The numbers of an INT8 file do not matter for the time, so it is calibrated on four images. Every peer is a process of its own that stays;
in each round each one in turn runs some passes, so that all see the same machine; the shortest time counts. What is not installed is named and left out.

--python: an interpreter with peers, as a command ("env PYTHONPATH=x python3"); may be repeated, the first that has a peer is used for it.
--oracle: a folder with a common.py that has load(checkpoint, width, classes, variant), capture_with_scope(model, x) and quantizer(): the originals' flow;
          without it Quark is left out, and so is PyTorch for networks of another width than S, M, L.
--batch:  images a pass. binade runs a batch as evaluation does: one image to a thread. Peers get a batch in one tensor.
--cpu-time counts processor time, which with --threads 1 also compares on a busy machine.
"""
import argparse, importlib, json, os, re, shlex, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PASSES = 3  # in a round, after one that warms the caches
PEERS = ["onnxruntime FP32", "onnxruntime QDQ", "OpenVINO FP32", "OpenVINO QDQ", "PyTorch eager", "PyTorch JIT", "Quark"]
OURS = {"binade FP32": ("fp32", "fakequant"), "binade fake-quant": ("int8", "fakequant"), "binade INT8": ("int8", "int8")}
AGAINST = {"onnxruntime FP32": "binade FP32", "onnxruntime QDQ": "binade INT8", "OpenVINO FP32": "binade FP32", "OpenVINO QDQ": "binade INT8",
           "PyTorch eager": "binade FP32", "PyTorch JIT": "binade FP32", "Quark": "binade fake-quant", "binade fake-quant": "binade FP32", "binade FP32": "binade INT8"}

# --- a peer, in a process of its own: says "ready" or "no: REASON", then answers each line with the shortest time in ms ---


kept = []  # temporary files, gone with the process


def onnx_file(path, batch):
    """The file for another number of images: the shapes of inputs and outputs change, and reshapes that fix the first dimension to 1."""
    if batch == 1:
        return path
    import onnx
    from onnx import numpy_helper
    model = onnx.load(path)
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.name in shapes and value.size and value[0] == 1:
            value = value.copy()
            value[0] = batch
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    other = tempfile.NamedTemporaryFile(suffix=".onnx")
    kept.append(other)
    onnx.save(model, other.name)
    return other.name


def onnxruntime_peer(case, image):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    path = onnx_file(case["int8" if case["peer"].endswith("QDQ") else "fp32"], case["batch"])
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: image})


def openvino_peer(case, image):
    import openvino
    core = openvino.Core()
    path = onnx_file(case["int8" if case["peer"].endswith("QDQ") else "fp32"], case["batch"])
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_NUM_THREADS": case["threads"], "PERFORMANCE_HINT": "LATENCY",
                                                                 "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    return lambda: request.infer([image])


def original_network(case):
    import torch
    torch.set_grad_enabled(False)
    if case["oracle"]:
        sys.path.insert(0, case["oracle"])
        return importlib.import_module("common").load(case["checkpoint"], case["width"], case["classes"], case["variant"]).eval()
    if case["width"] != 1:
        raise ValueError("this width of network needs --oracle")
    from super_gradients.training import models
    state = torch.load(case["checkpoint"], map_location="cpu", weights_only=False)
    model = models.get(f"yolo_nas_{case['variant']}", num_classes=case["classes"])
    model.load_state_dict(state.get("net", state), strict=True)
    return model.eval()


def pytorch_peer(case, image):
    import torch
    torch.set_num_threads(case["threads"])
    x, model = torch.from_numpy(image), original_network(case)
    model.prep_model_for_conversion(input_size=list(image.shape))
    for module in model.modules():  # the fully fused form of the re-parameterized blocks
        if hasattr(module, "full_fusion"):
            module.full_fusion()
    if case["peer"].endswith("JIT"):
        model = torch.jit.optimize_for_inference(torch.jit.trace(model, x, check_trace=False))
        for _ in range(3):
            model(x)
    return lambda: model(x)


def quark_peer(case, image):
    if not case["oracle"]:
        raise ValueError("needs --oracle")
    import torch
    torch.set_num_threads(case["threads"])
    torch._dynamo.config.recompile_limit = 1000  # Quark compiles its fake quantizer anew for every shape
    torch._dynamo.config.accumulated_recompile_limit = 10000
    x, model = torch.from_numpy(image), original_network(case)
    common = importlib.import_module("common")
    with torch.enable_grad():
        graph = common.capture_with_scope(model, x)
    tool = common.quantizer()
    frozen = tool.freeze(tool.quantize_model(graph, [x]).eval())
    return lambda: frozen(x)


def serve(case):
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries talk
    os.environ["OMP_NUM_THREADS"] = str(case["threads"])
    clock = time.process_time if case["cpu_time"] else time.perf_counter

    def answer(text):
        print(text, file=answers, flush=True)

    try:
        import numpy as np
        image = np.random.default_rng(0).random((case["batch"], 3, case["height"], case["width_pixels"]), dtype=np.float32)
        kind = case["peer"].split()[0]
        run = {"onnxruntime": onnxruntime_peer, "OpenVINO": openvino_peer, "PyTorch": pytorch_peer, "Quark": quark_peer}[kind](case, image)
        run()
    except Exception as reason:
        answer("no: " + (str(reason).strip().splitlines() or [repr(reason)])[0])
        return
    answer("ready")
    for _ in sys.stdin:
        run()
        best = 1e9
        for _ in range(PASSES):
            start = clock()
            run()
            best = min(best, clock() - start)
        answer(best * 1e3)


# --- the comparison ---


class Peer:
    def __init__(self, interpreters, case):
        self.process, self.reason = None, "not installed"
        module = {"onnxruntime": "onnxruntime", "OpenVINO": "openvino", "PyTorch": "torch", "Quark": "quark"}[case["peer"].split()[0]]
        for interpreter in interpreters:
            if subprocess.run([*interpreter, "-c", f"import numpy, {module}"], capture_output=True).returncode == 0:
                break
        else:
            return
        environment = dict(os.environ, OMP_NUM_THREADS=str(case["threads"]))
        self.process = subprocess.Popen([*interpreter, os.path.abspath(__file__), "--serve", json.dumps(case)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, env=environment)
        answer = self.process.stdout.readline().strip()
        if answer != "ready":
            self.reason = answer[4:] or "ended without a word"
            self.close()

    def time(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline() or "inf")

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process = None


def our_time(args, case, kind):
    file, executor = OURS[kind]
    command = [args.program, "bench", case[file], "--executor", executor, "--threads", str(case["threads"]), "--rounds", str(PASSES), "--json", "-q"]
    if case["batch"] > 1:
        command += ["--batch", str(case["batch"])]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if case["batch"] > 1:
        return result["batch_seconds"] * 1e3
    return result["seconds" if args.cpu_time else "wall_seconds"] * 1e3


def compare(args, case):
    wanted = lambda name: not args.only or any(word.lower() in name.lower() for word in args.only)
    peers, left_out = {}, {}
    for name in filter(wanted, PEERS):
        peer = Peer(args.python, dict(case, peer=name))
        if peer.process:
            peers[name] = peer
        else:
            left_out[name] = peer.reason
    best = {name: float("inf") for name in [*filter(wanted, OURS), *peers]}
    try:
        for _ in range(args.rounds):
            for name in best:
                best[name] = min(best[name], peers[name].time() if name in peers else our_time(args, case, name))
                time.sleep(0.25)  # threads that wait for work stop spinning
    finally:
        for peer in peers.values():
            peer.close()
    return best, left_out


def prepare(args, text):
    """-> the case of one --model: its files and what peers must know to build the network."""
    name, _, files = text.partition("=")
    checkpoint, _, int8 = files.partition(",")
    if not checkpoint:
        sys.exit(f"bench/run: --model takes NAME=CHECKPOINT, not '{text}'")
    about = json.loads(subprocess.run([args.program, "info", checkpoint, "--json"], capture_output=True, text=True, check=True).stdout)
    stem = int(re.search(r"stem of (\d+) channels", subprocess.run([args.program, "info", checkpoint], capture_output=True, text=True, check=True).stdout)[1])
    folder = os.path.join(args.work, name)
    os.makedirs(folder, exist_ok=True)
    fp32 = os.path.join(folder, "fp32.onnx")
    subprocess.run([args.program, "convert", checkpoint, "--form", "folded", "-o", fp32], check=True, stdout=subprocess.DEVNULL)
    if not int8:
        subprocess.run([args.program, "quantize", checkpoint, "--data", args.data, "--calib", "4", "--batch", "4", "--no-eval", "-q", "-o", folder], check=True,
                       stdout=subprocess.DEVNULL)
        int8 = os.path.join(folder, "int8.onnx")
    size = next(value["shape"] for value in about["inputs"])
    return dict(name=name, checkpoint=os.path.abspath(checkpoint), fp32=os.path.abspath(fp32), int8=os.path.abspath(int8), variant=about["variant"].lower(),
                width=1 if about["full_width"] else stem / 48, classes=len(about["classes"]), height=size[2], width_pixels=size[3])


def start_up(args):
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        subprocess.run([args.program, "--version"], stdout=subprocess.DEVNULL, check=True)
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def print_case(title, best, left_out):
    print(f"\n{title}")
    for name, ms in best.items():
        other = AGAINST.get(name)
        ratio = f"{ms / best[other]:6.2f} times {other}'s" if other in best else ""
        print(f"  {name:20s} {ms:10.2f} ms  {ratio}".rstrip())
    for name, reason in left_out.items():
        print(f"  {name:20s} left out: {reason}")


def svg(rows, title):
    """Horizontal bars, a group for each case; text and lines in the page's own colour, so that light and dark pages do."""
    left, bar, width, y, parts = 170, 14, 470, 44, []
    escape = lambda text: text.replace("&", "&amp;").replace("<", "&lt;")
    for case, best in rows:
        most = max(best.values())
        parts.append(f'<text x="8" y="{y + 4}" font-weight="bold">{escape(case)}</text>')
        y += 14
        for name, ms in best.items():
            ours = name.startswith("binade")
            length = max(1.0, width * ms / most)
            parts.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
                         f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 2}" fill="{"#2a7ab9" if ours else "#9a9a9a"}"/>'
                         f'<text x="{left + length + 6:.1f}" y="{y + 11}">{ms:.1f} ms</text>')
            y += bar + 2
        y += 18
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 80} {y}" font-family="sans-serif" font-size="11" fill="#808080">\n'
            f'<text x="8" y="20" font-size="14">{escape(title)}</text>\n' + "\n".join(parts) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", metavar="NAME=CHECKPOINT[,INT8.onnx]")
    parser.add_argument("--python", action="append", default=[]); parser.add_argument("--oracle", default="")
    parser.add_argument("--program", default=f"{ROOT}/build/release/binade"); parser.add_argument("--data", default=f"{ROOT}/examples/shapes")
    parser.add_argument("--batch", default="1,8"); parser.add_argument("--threads", default="1,2"); parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true"); parser.add_argument("--only", action="append")
    parser.add_argument("--work", default=f"{ROOT}/build/bench-run"); parser.add_argument("--json"); parser.add_argument("--svg")
    args = parser.parse_args()
    if not args.model:
        args.model = [f"example={ROOT}/examples/shapes/yolo_nas_pico_shapes.pth"]
    args.python = [shlex.split(command) for command in args.python] or [[sys.executable]]
    batches, threads = ([int(number) for number in text.split(",")] for text in (args.batch, args.threads))
    if args.cpu_time and (batches != [1] or threads != [1]):
        parser.error("--cpu-time goes with --batch 1 --threads 1: with more, the sum over threads says nothing about speed")
    cases = [prepare(args, text) for text in args.model]
    rows, results = [], []
    start = start_up(args)
    clock = "processor time" if args.cpu_time else "time"
    print(f"binade --version: {start:.1f} ms")
    for case in cases:
        for batch in batches:
            for count in threads:
                title = f"{case['name']}, {case['width_pixels']}x{case['height']}, batch {batch}, {count} thread{'s' * (count > 1)}, shortest {clock} of {args.rounds} rounds"
                best, left_out = compare(args, dict(case, batch=batch, threads=count, oracle=args.oracle and os.path.abspath(args.oracle), cpu_time=args.cpu_time))
                print_case(title, best, left_out)
                sys.stdout.flush()
                rows.append((f"{case['name']}, batch {batch}, {count} thread{'s' * (count > 1)}", best))
                results.append(dict(model=case["name"], batch=batch, threads=count, milliseconds=best, left_out=left_out))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(dict(start_up_ms=start, clock=clock, cases=results), file, indent=2)
    if args.svg:
        with open(args.svg, "w") as file:
            file.write(svg([row for row in rows if row[1]], f"Forward passes, {clock}"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(json.loads(sys.argv[2]))
    else:
        main()
