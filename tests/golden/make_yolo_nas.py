"""What torch.export and super-gradients make of YOLO-NAS: graphs, scopes, shapes, merged weights. Run in the oracle environment, with the oracle's common.py
on PYTHONPATH and the shared folder as argument:

    PYTHONPATH=<shared>/oracle python tests/golden/make_yolo_nas.py <shared> tests/data/yolo_nas

tiny_{train,scope}.txt  the captured graph of a network of odd proportions in training form, and partially fused with the published scope's stubs; 64x96
tiny_nodes.tsv          of the second one: node, innermost module, shapes (";" between results)
merged.tsv              checkpoint, tensor, CRC-32 of its float32 values after partial fusion; "tiny" is filled by `fill`, which the test repeats
anchors.tsv             height, width, CRC-32 of the training anchors and of their centres
"""
import copy, sys, zlib
import numpy as np, torch
from common import SCALED, build, capture_with_scope
from super_gradients.training.models.arch_params_factory import get_arch_params
from super_gradients.training.models.detection_models.customizable_detector import CustomizableDetector
from super_gradients.training.models.detection_models.pp_yolo_e.pp_yolo_head import generate_anchors_for_grid_cell
from super_gradients.training.utils import HpmStruct

shared, out = sys.argv[1:3]


def tiny():
    """One bottleneck everywhere, but two with concatenated intermediates in stage 2; two classes, five bins."""
    params = copy.deepcopy(get_arch_params("yolo_nas_s_arch_params"))

    def scale(node):
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
        for key, value in items:
            if key in SCALED and isinstance(value, int): node[key] = max(4, value // 16)
            elif key == "num_blocks": node[key] = 1
            elif key == "num_classes": node[key] = 2
            elif key == "reg_max": node[key] = 4
            else: scale(value)

    scale(params)
    stage2 = params["backbone"]["NStageBackbone"]["stages"][1]["YoloNASStage"]
    stage2["num_blocks"], stage2["concat_intermediates"] = 2, True
    return CustomizableDetector(params if isinstance(params, HpmStruct) else HpmStruct(**params)).eval()


def fill(name, shape):
    """Numbers in [-1,1) from the name and the position (murmur3's finalizer); variances in [0.5,1.5)."""
    seed = zlib.crc32(name.encode())
    h = np.uint32(seed) ^ (np.arange(int(np.prod(shape)), dtype=np.uint64) * 0x9E3779B9 & 0xFFFFFFFF).astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ h >> np.uint32(shift)) * np.uint32(factor)
    v = (h >> np.uint32(8)).astype(np.float32) * np.float32(2**-23) - np.float32(1)
    return torch.from_numpy((np.abs(v) + np.float32(0.5) if name.endswith("running_var") else v).reshape(shape))


def merged(model, checkpoint, table):
    """torch.sqrt of MKL builds is one unit off for a fifth of all numbers, which ones depends on the processor; here it is the correctly rounded one.
    Everything else is super-gradients' own arithmetic."""
    original, torch.sqrt = torch.sqrt, lambda t: torch.from_numpy(np.sqrt(t.detach().numpy()))
    model.prep_model_for_conversion(input_size=[1, 3, 64, 96])
    torch.sqrt = original
    for name, t in model.state_dict().items():
        if "rbr_reparam" in name:
            print(checkpoint, name, "%08x" % zlib.crc32(t.detach().numpy().tobytes()), sep="\t", file=table)


torch.manual_seed(0)
x = torch.zeros(1, 3, 64, 96)
model = tiny()
model.load_state_dict({k: fill(k, v.shape) if v.is_floating_point() else v for k, v in model.state_dict().items()})
open(f"{out}/tiny_train.txt", "w").write(str(torch.export.export_for_training(model, (x,)).module().graph))
open(f"{out}/tiny_names.txt", "w").write("".join(f"{k} [{','.join(map(str, v.shape))}]\n" for k, v in model.state_dict().items()))
graph = capture_with_scope(copy.deepcopy(model), x)
open(f"{out}/tiny_scope.txt", "w").write(str(graph.graph))
with open(f"{out}/tiny_nodes.tsv", "w") as f:
    for n in graph.graph.nodes:
        value = n.meta.get("val")
        stack = n.meta.get("nn_module_stack")
        shapes = [value] if isinstance(value, torch.Tensor) else value if isinstance(value, (list, tuple)) else None
        if n.op == "output" or (shapes is None and n.op != "call_function"): continue
        print(n.name, list(stack.values())[-1][0] if stack else "-", ";".join("x".join(map(str, s.shape)) or "scalar" for s in shapes or ()), sep="\t", file=f)
with open(f"{out}/merged.tsv", "w") as f:
    merged(model, "tiny", f)
    golden = build(0.25, 8, "s").eval()
    golden.load_state_dict(torch.load(f"{shared}/golden/pico/yolo_nas_pico_shapes.pth", map_location="cpu")["net"])
    merged(golden, "pico", f)
with open(f"{out}/anchors.tsv", "w") as f:
    for h, w in ((64, 96), (640, 640), (320, 416)):
        feats = [torch.zeros(1, 1, h // s, w // s) for s in (8, 16, 32)]
        anchors, points, _, _ = generate_anchors_for_grid_cell(feats, (8, 16, 32), 5.0, 0.5)
        print(h, w, *("%08x" % zlib.crc32(t.numpy().tobytes()) for t in (anchors, points)), sep="\t", file=f)
