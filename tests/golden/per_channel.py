"""Positions of per-channel weights (MinMax and MinMSE) from Quark itself, as tab-separated rows: name, positions of the channels.

usage (in the oracle's environment, from its folder): python per_channel.py CHECKPOINT OUT.tsv --data DIR [--width W] [--classes N] [--variant s|m|l] [--calib N]
                                                      [--batch B] [--mse]
Weights: PerChannelPowOf2Min{Max,MSE}Observer on axis 0; everything else as common.quantizer().
"""
import argparse, os, sys
import numpy as np, torch
sys.path.insert(0, os.environ.get("ORACLE", os.getcwd()))
from common import Coco, capture_with_scope, load
import quark.torch.quantization.observer.observer as observers
from quark.torch import ModelQuantizer
from quark.torch.quantization.config.config import Config, QuantizationConfig, QuantizationSpec
from quark.torch.quantization.config.type import Dtype, QSchemeType, QuantizationMode, RoundType, ScaleType

parser = argparse.ArgumentParser()
parser.add_argument("checkpoint"); parser.add_argument("out"); parser.add_argument("--data", required=True)
parser.add_argument("--variant", default="s"); parser.add_argument("--width", type=float, default=1.0); parser.add_argument("--classes", type=int, default=80)
parser.add_argument("--calib", type=int, default=20); parser.add_argument("--batch", type=int, default=10); parser.add_argument("--mse", action="store_true")
args = parser.parse_args()
torch.set_num_threads(2); torch.manual_seed(0)
data = Coco(args.data, "val2017")
chosen = data.images[: args.calib]
calibration = [data.batch(chosen[i : i + args.batch])[0] for i in range(0, len(chosen), args.batch)]
kind = "MSE" if args.mse else "Max"
common = dict(dtype=Dtype.int8, symmetric=True, scale_type=ScaleType.float, round_method=RoundType.half_even, is_dynamic=False)
tensor = QuantizationSpec(qscheme=QSchemeType.per_tensor, observer_cls=getattr(observers, f"PerTensorPowOf2Min{kind}Observer"), **common)
channel = QuantizationSpec(qscheme=QSchemeType.per_channel, ch_axis=0, observer_cls=getattr(observers, f"PerChannelPowOf2Min{kind}Observer"), **common)
config = QuantizationConfig(weight=channel, bias=tensor, input_tensors=tensor, output_tensors=tensor)
tool = ModelQuantizer(Config(global_quant_config=config, quant_mode=QuantizationMode.fx_graph_mode))
graph = capture_with_scope(load(args.checkpoint, args.width, args.classes, args.variant).eval(), calibration[0][:1])
quantized = tool.quantize_model(graph, calibration)


def rows(model, frozen):
    found = {}
    modules = dict(model.named_modules())
    positions = lambda fake: [int(round(-np.log2(float(s)))) for s in fake.scale.flatten()]
    for node in model.graph.nodes:
        if node.op != "call_module":
            continue
        if node.name.startswith("fake_quantizer"):
            found[node.name] = positions(modules[node.target])
        for part in ("weight", "bias"):
            fake = getattr(modules[node.target], f"_{part}_quantizer", None)
            if fake is not None:
                found[f"{node.name}.{part}"] = positions(fake)
    return found


calibrated = rows(quantized, False)
final = rows(tool.freeze(quantized.eval()), True)
with open(args.out, "w") as f:
    for name, positions in calibrated.items():
        f.write(f"{name}\t{','.join(map(str, positions))}\t{','.join(map(str, final[name]))}\n")
