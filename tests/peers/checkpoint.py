"""Opens what write_checkpoint made with torch and super-gradients.

usage: checkpoint.py WRITE_CHECKPOINT FOLDER [SHARED]

Files of several variants, widths and class counts are written to FOLDER. Each is loaded by torch.load(weights_only=True), from memory mapped pages and by
super-gradients (strict=True), which builds a network of its own; names, order, shapes, data types and all bits are compared with OUT.pth.raw. Initial values:
what is constant in the original must be the same constant here, everything else must come from the same distribution (two-sample Kolmogorov-Smirnov
statistic, and no value beyond what torch.nn.init allows). SHARED: folder with the golden checkpoint, whose head is then exchanged.
Needs torch and super-gradients.
"""
import copy, math, os, subprocess, sys, zipfile
import numpy as np, torch
from super_gradients.training import models
from super_gradients.training.models.arch_params_factory import get_arch_params
from super_gradients.training.models.detection_models.customizable_detector import CustomizableDetector
from super_gradients.training.utils import HpmStruct
from super_gradients.training.utils.checkpoint_utils import load_checkpoint_to_model

tool, folder = sys.argv[1:3]
failures = 0


def report(fine, *text):
    global failures
    failures += not fine
    print("PASS" if fine else "FAIL", *text, flush=True)


def build(variant, width, classes):
    """Every channel count of the architecture's parameters multiplied by `width`."""
    params = copy.deepcopy(get_arch_params(f"yolo_nas_{variant.lower()}_arch_params"))

    def scale(node):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ():
            if key in ("out_channels", "hidden_channels", "output_channels", "inter_channels") and isinstance(value, int):
                node[key] = max(4, int(value * width))
            elif key == "num_classes":
                node[key] = classes
            else:
                scale(value)

    scale(params)
    return CustomizableDetector(params if isinstance(params, HpmStruct) else HpmStruct(**params))


def write(name, variant, width, classes, seed, *source):
    path = os.path.join(folder, name)
    subprocess.run([tool, path, variant, repr(width), str(classes), str(seed), *source], check=True)
    return path


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def compare_loading(path, model, what):
    data = torch.load(path, weights_only=True)
    net, expected = data["net"], model.state_dict()
    listed = lambda state: [(k, tuple(v.shape), v.dtype) for k, v in state.items()]
    report(listed(net) == listed(expected), what, "names, order, shapes and types:", len(expected), "tensors")
    raw = open(path + ".raw", "rb").read()
    report(b"".join(map(bits, net.values())) == raw, what, "torch.load gives the same", len(raw), "bytes")
    mapped = torch.load(path, weights_only=True, mmap=True)["net"]
    report(b"".join(map(bits, mapped.values())) == raw and all(v.data_ptr() % 64 == 0 for v in mapped.values() if v.numel()), what, "mapped: same bytes, aligned")
    model.load_state_dict(net, strict=True)
    report(b"".join(map(bits, model.state_dict().values())) == raw, what, "super-gradients' network holds the same bytes")
    load_checkpoint_to_model(model, path, load_ema_as_net=True, strict=True)
    report(all(torch.equal(v, data["ema_net"][k]) for k, v in model.state_dict().items()), what, "load_checkpoint_to_model loads ema_net")
    return data


def smirnov(a, b):
    """sup |F_a - F_b| over what chance leaves; above 2.5 about once in 270000 comparisons."""
    a, b = np.sort(a), np.sort(b)
    at = np.concatenate([a, b])
    distance = np.abs(np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)).max()
    return distance * math.sqrt(len(a) * len(b) / (len(a) + len(b)))


def compare_distributions(net, model, what):
    constants, worst, at, beyond, names = 0, 0.0, "", [], {}
    modules = dict(model.named_modules())
    for name, theirs in model.state_dict().items():
        ours, theirs = net[name].numpy().ravel(), theirs.numpy().ravel()
        owner = modules[name.rpartition(".")[0]]
        random = isinstance(owner, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)) and not name.endswith("cls_pred.bias")
        if not random:
            constants += np.array_equal(ours, theirs)
            names[name] = np.array_equal(ours, theirs)
            continue
        bound = np.float32(1 / math.sqrt(torch.nn.init._calculate_fan_in_and_fan_out(owner.weight)[0]))
        if np.abs(ours).max() > bound or (len(ours) > 1000 and np.abs(ours).max() < 0.98 * bound): beyond.append(name)
        statistic = smirnov(ours, theirs)
        if statistic > worst: worst, at = statistic, name
    report(all(names.values()), what, constants, "constant tensors as in the original", [n for n, same in names.items() if not same][:3])
    report(not beyond, what, "values within the bounds of torch.nn.init", beyond[:3])
    report(worst < 2.5, what, f"same distributions: largest statistic {worst:.2f} ({at})")
    values = np.concatenate([v.numpy().ravel() for k, v in net.items() if k.endswith("branch_1x1.weight")])
    report(len(np.unique(values)) > 0.9 * len(values), what, "tensors are drawn independently of each other")


torch.manual_seed(0)
for variant, width, classes, seed in (("S", 0.5, 80, 1), ("M", 0.25, 7, 2), ("L", 0.1, 1, 3), ("S", 0.37, 3, 4)):
    what = f"{variant} width {width:g} classes {classes}:"
    path = write(f"{variant}{width:g}.pth", variant, width, classes, seed)
    model = build(variant, width, classes)
    fresh = copy.deepcopy(model)
    data = compare_loading(path, model, what)
    compare_distributions(data["net"], fresh, what)

report(zipfile.ZipFile(path).testzip() is None, "checksums of all records")
types = {"float32": -3.0, "float64": -3.0, "int64": -3, "int32": -3, "int16": -3, "int8": -3, "uint8": 253, "bool": True, "float16": 0, "bfloat16": 0}
for name, first in types.items():
    tensor = data["types"][name]
    report(tensor.dtype == getattr(torch, name) and tensor.shape == (2, 1, 3) and tensor[0, 0, 0] == first, "data type", name)
report(data["types"]["empty"].shape == (0, 3), "a tensor without elements")
report([data[k] for k in ("epoch", "acc", "nothing", "yes", "no", "text")] == [7, 0.1, None, True, False, "größer € 🐱"], "plain values")
report(data["integers"] == [0, 255, 256, -1, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63)], "integers of every size")
report(data["metrics"] == {"tracked_metric_name": "mAP@0.50:0.95", "valid": {"mAP@0.50:0.95": 0.4793}, "train": {}}, "nested dicts")

again = write("again.pth", "S", 0.37, 3, 4)
report(open(again, "rb").read() == open(path, "rb").read(), "equal content, equal bytes")

# the whole way of super-gradients: architecture by name, weights and preprocessing from the file, prediction
path = write("published.pth", "S", 1.0, 5, 9)
model = models.get("yolo_nas_s", num_classes=5, checkpoint_path=path)
report(list(model._class_names) == [f"shape {i}" for i in range(5)], "class names reach super-gradients")
chain = [(type(p).__name__, getattr(p, "output_shape", None)) for p in model._image_processor.processings]
report([name for name, _ in chain if name != "ComposeProcessing"] == ["DetectionLongestMaxSizeRescale", "DetectionCenterPadding", "StandardizeImage", "ImagePermute"],
       "its preprocessing reaches super-gradients", chain)
with torch.no_grad():
    prediction = model.predict(np.zeros((200, 300, 3), np.uint8), conf=0.001)
report(prediction is not None, "super-gradients predicts with it")

if len(sys.argv) > 3:
    golden = os.path.join(sys.argv[3], "golden/pico/yolo_nas_pico_shapes.pth")
    old = torch.load(golden, weights_only=False)
    old = old.get("ema_net", old.get("net", old))
    same = torch.load(write("same.pth", "S", 0.25, 80, 5, golden), weights_only=True)["net"]
    count = old["heads.head1.cls_pred.bias"].numel()
    changed = lambda new: [k for k in old if old[k].shape != new[k].shape or bits(old[k]) != bits(new[k])]
    report(list(same) == list(old) and all("cls_pred" in k for k in changed(same)) and len(changed(same)) == (6 if count != 80 else 0), "golden, 80 classes: all but the class predictions kept")
    kept = torch.load(write("kept.pth", "S", 0.25, count, 5, golden), weights_only=True)["net"]
    report(list(kept) == list(old) and not changed(kept), "golden, its own classes: read and written to the last bit")
sys.exit(failures > 0)
