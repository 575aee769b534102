"""Small networks through AMD Quark's FX flow: what every step of a re-implementation must reproduce.

usage: QUARK_DISABLE_COMPILE=1 python conformance.py OUT [CASE ...]    (torch 2.7.1, amd-quark 0.11.2, onnx)

The networks are in conformance_networks.py; their quantizer counts are those the original's test asserts. OUT/CASE.txt holds, in sections:
  [case]        observer
  [attributes]  name, parameter or buffer, dtype, shape, then how to fill it: "uniform LOW HIGH SEED" (see `uniform`) or "values V..."
  [inputs]      name, shape, "uniform LOW HIGH SEED"
  [captured]    the graph torch.export gives, as torch.fx prints it
  [shapes]      node, shape, ... of [captured] (several for operators with several results)
  [prepared]    the graph after Quark's rewrites (quantized with an empty configuration)
  [quantized]   the graph after insertion and calibration
  [frozen]      the graph after freeze
  [quantizers]  name, kind, observed node, position after calibration, position after freeze (- = gone with dead code)
  [rule NAME]   "set QUANTIZER POSITION" on the calibrated graph, then the positions of all quantizers after that one rule
  [outputs]     float or frozen, index of the output, then 16 values evenly spread over it: of the prepared and of the frozen network
  [operators]   how many nodes of each type torch.onnx.export writes for the frozen graph
"""
import collections, contextlib, copy, io, os, sys, tempfile
os.environ["QUARK_DISABLE_COMPILE"] = "1"
import numpy as np, onnx, torch, torch.nn as nn
import quark.torch.quantization.graph.optimization.post_quant.opt_pass_after_quant_powof2_scale as rules
import quark.torch.quantization.observer.observer as observers
from conformance_networks import CASES
from quark.torch import ModelQuantizer
from quark.torch.quantization.config.config import Config, QuantizationConfig, QuantizationSpec
from quark.torch.quantization.config.type import Dtype, QSchemeType, QuantizationMode, RoundType, ScaleType
from quark.torch.quantization.nn.modules import QuantAdaptiveAvgPool2d, QuantAvgPool2d
from quark.torch.quantization.tensor_quantize import FakeQuantizeBase


def uniform(shape, low, high, seed):
    """float32(low + (high - low) * u), u = the upper 24 bits of splitmix64's output number i for this seed, over 2^24."""
    count = int(np.prod(shape, dtype=np.int64))
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float64) / 2.0**24
    return torch.from_numpy((low + (high - low) * u).astype(np.float32).reshape(shape))


def fill(model, number):
    """Gives every parameter and running statistic reproducible values; -> {name: how}."""
    how = {}
    with torch.no_grad():
        for i, (name, tensor) in enumerate([*model.named_parameters(), *model.named_buffers()]):
            seed, norm = 1000 * number + i + 1, isinstance(model.get_submodule(name.rpartition(".")[0]), (nn.BatchNorm2d, nn.LayerNorm))
            if name.endswith("num_batches_tracked") or (isinstance(tensor, nn.Parameter) is False and not norm):
                how[name] = "values " + " ".join(repr(v) for v in tensor.flatten().tolist())
                continue
            if norm:
                low, high = (0.5, 1.5) if name.endswith(("weight", "running_var")) else (-0.5, 0.5)
            else:
                owner = model.get_submodule(name.rpartition(".")[0])
                fan = owner.weight[0].numel() if not isinstance(owner, nn.ConvTranspose2d) else owner.weight[:, 0].numel()
                high = float(np.float32(1 / np.sqrt(fan)))
                low = -high
            tensor.copy_(uniform(tensor.shape, low, high, seed))
            how[name] = f"uniform {low!r} {high!r} {seed}"
    return how


def tool(observer):
    if observer is None:
        return ModelQuantizer(Config(global_quant_config=QuantizationConfig(), quant_mode=QuantizationMode.fx_graph_mode))
    spec = QuantizationSpec(dtype=Dtype.int8, qscheme=QSchemeType.per_tensor, observer_cls=getattr(observers, f"PerTensorPowOf2{observer}Observer"),
                            symmetric=True, scale_type=ScaleType.float, round_method=RoundType.half_even, is_dynamic=False)
    return ModelQuantizer(Config(global_quant_config=QuantizationConfig(weight=spec, bias=spec, input_tensors=spec, output_tensors=spec),
                                 quant_mode=QuantizationMode.fx_graph_mode))


def quantizers(graph):
    """[(name, kind, observed node, module)] in graph order, a convolution's weight before its bias."""
    rows, modules = [], dict(graph.named_modules())
    for node in graph.graph.nodes:
        if node.op != "call_module":
            continue
        if node.name.startswith("fake_quantizer"):
            rows.append((node.name, "activation", str(node.args[0]), modules[node.target]))
        for part in ("weight", "bias"):
            fake = getattr(modules[node.target], f"_{part}_quantizer", None)
            if fake is not None:
                rows.append((f"{node.name}.{part}", part, node.name, fake))
    return rows


def position(module):
    return int(round(-np.log2(float(module.scale))))


RULES = {
    "align_concat": lambda: rules.ApplyConstrain2ConcatQOPass(),
    "align_pool": lambda: rules.AlignSingleInOutModuleScaleQOPass((QuantAvgPool2d, QuantAdaptiveAvgPool2d)),
    "shift_read": lambda: rules.AdjustShiftReadQOPass(),
    "shift_write": lambda: rules.AdjustShiftWriteQOPass(),
    "shift_cut": lambda: rules.AdjustShiftCutQOPass(),
    "shift_bias": lambda: rules.AdjustShiftBiasQOPass(),
    "hard_sigmoid": lambda: rules.AdjustHardSigmoidQOPass(),
    "shift_swish": lambda: rules.AdjustShiftSwishQOPass(),
}


def shape_text(shape):
    return "x".join(map(str, shape)) if len(shape) else "scalar"


def outputs(stage, model, inputs):
    with torch.no_grad():
        results = model(*inputs)
    for i, result in enumerate(results if isinstance(results, (tuple, list)) else [results]):
        flat = result.flatten()
        yield " ".join([stage, str(i), *[repr(float(flat[k * len(flat) // 16])) for k in range(16)]])


def run(name, number, path):
    cls, input_shapes, observer, behaviours = CASES[name]
    torch.manual_seed(0)
    model = cls().eval()
    how = fill(model, number)
    capture = lambda: torch.export.export_for_training(model, tuple(inputs)).module()
    inputs = [uniform(shape, 0.0, 1.0, 1000 * number + 900 + i) for i, shape in enumerate(input_shapes)]
    graph, out = capture(), []
    names = [node.target for node in graph.graph.nodes if node.op == "placeholder"]
    batch = inputs[0] if len(inputs) == 1 else dict(zip(names, inputs))
    section = lambda title, *lines: out.extend([f"[{title}]", *lines])

    section("case", f"observer {observer}")
    attributes = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            value = graph
            for part in node.target.split("."):
                value = getattr(value, part)
            attributes[node.target] = f"{node.target} {'parameter' if isinstance(value, nn.Parameter) else 'buffer'} {str(value.dtype)[6:]} {shape_text(value.shape)} {how[node.target]}"
    section("attributes", *attributes.values())
    section("inputs", *[f"{n} {shape_text(s)} uniform 0.0 1.0 {1000 * number + 900 + i}" for i, (n, s) in enumerate(zip(names, input_shapes))])
    section("captured", str(graph.graph))
    shapes = lambda value: [shape_text(v.shape) for v in (value if isinstance(value, (tuple, list)) else [value])]
    section("shapes", *[" ".join([node.name, *shapes(node.meta["val"])]) for node in graph.graph.nodes if "val" in node.meta])
    prepared = tool(None).quantize_model(capture(), [batch]).eval()
    section("prepared", str(prepared.graph))

    quantizer = tool(observer)
    quantized = quantizer.quantize_model(graph, [batch])
    section("quantized", str(quantized.graph))
    calibrated = [(*row[:3], position(row[3])) for row in quantizers(quantized)]
    assert len(calibrated) == sum(isinstance(m, FakeQuantizeBase) for m in quantized.modules())
    assert all(int(row[3].zero_point) == 0 for row in quantizers(quantized)), "a zero point"
    results = []
    for rule, chosen in behaviours:
        changed = copy.deepcopy(quantized)
        for key, value in chosen.items():
            changed.get_submodule(key).scale.fill_(2.0**-value)
        RULES[rule]()(changed)
        results.append((rule, chosen, [(row[0], position(row[3])) for row in quantizers(changed)]))
    frozen = quantizer.freeze(quantized.eval())
    section("frozen", str(frozen.graph))
    final = {row[0]: position(row[3]) for row in quantizers(frozen)}
    section("quantizers", *[f"{n} {kind} {observed} {p} {final.get(n, '-')}" for n, kind, observed, p in calibrated])
    for rule, chosen, after in results:
        section(f"rule {rule}", *[f"set {k} {v}" for k, v in chosen.items()], *[f"{k} {v}" for k, v in after])
    section("outputs", *outputs("float", prepared, inputs), *outputs("frozen", frozen, inputs))
    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(frozen, tuple(inputs), f"{folder}/m.onnx", dynamo=False)
        counts = collections.Counter(node.op_type for node in onnx.load(f"{folder}/m.onnx").graph.node)
    section("operators", *[f"{k} {v}" for k, v in sorted(counts.items())])
    with open(f"{path}/{name}.txt", "w") as f:
        f.write("\n".join(out) + "\n")
    return len(calibrated)


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.makedirs(sys.argv[1], exist_ok=True)
    for number, name in enumerate(CASES):
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        noise = io.StringIO()
        try:
            with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
                count = run(name, number, sys.argv[1])
        except Exception:
            print(noise.getvalue()[-3000:])
            raise
        print(name, count, flush=True)
