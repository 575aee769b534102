"""Makes tests/data/unusual: a data set in COCO's layout of everything that is allowed but rare, and what the originals measure on it.

Pictures are those of examples/shapes under other names (links.tsv: name in the set, name in the example) and four made here. Measured with
super-gradients' own data set, transforms, post-processing and metrics, and pycocotools, on the example's checkpoint (wanted.txt: mAP@0.50,
mAP@0.50:0.95, then COCO's twelve numbers, over the images super-gradients keeps).
Also roboflow.pth: a checkpoint as super-gradients' trainer leaves it after fine-tuning with the Roboflow recipe (ema_net that counts and net that does
not, names with "module.", one class, other preprocessing), of least width, random but for scores that differ; and what predict() finds with it in one picture
(roboflow.tsv: score, class, x1, y1, x2, y2).
Run in the environment of the originals (torch 2.7.1, super-gradients 3.7.1, pycocotools 2.0.8), with the folder of their helpers (common.py):
    python tests/golden/make_unusual.py /path/to/oracle
"""
import contextlib, io, json, os, random, shutil, sys, tempfile
import cv2, numpy as np, torch

root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
shapes, out = f"{root}/examples/shapes", f"{root}/tests/data/unusual"
sys.path.insert(0, sys.argv[1])
import common
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from super_gradients.training.metrics import DetectionMetrics_050, DetectionMetrics_050_095
from super_gradients.training.models.detection_models.pp_yolo_e import PPYoloEPostPredictionCallback

example = json.load(open(f"{shapes}/annotations/instances_val2017.json"))
ids = [2, 3, 5, 7, 44, 90, 100, 1000000]  # neither from 1 nor without gaps
names = ['a "quoted" one', "b's", "ünïcödé", "日本", "line\nfeed", "tab\tstop", "", "back\\slash"]
id_of = dict(zip(sorted(c["id"] for c in example["categories"]), ids))
images, annotations, links = [], [], []
work = tempfile.mkdtemp()
os.makedirs(f"{work}/images/val2017")
os.makedirs(f"{work}/annotations")


def boxes_of(image):
    return [dict(a, category_id=id_of[a["category_id"]]) for a in example["annotations"] if a["image_id"] == image["id"]]


def add(name, boxes, width, height):
    image_id = 1000 - 7 * len(images)  # descending: the order is that of the list
    images.append(dict(id=image_id, file_name=name, width=width, height=height))
    for box in boxes:
        area = box.get("area", box["bbox"][2] * box["bbox"][3])
        annotations.append(dict(id=len(annotations) + 5, image_id=image_id, category_id=box["category_id"], bbox=box["bbox"], area=area, iscrowd=box.get("iscrowd", 0)))


def link(name, index, change=lambda boxes: boxes):
    image = example["images"][index]
    shutil.copy(f"{shapes}/images/val2017/{image['file_name']}", f"{work}/images/val2017/{name}")
    links.append((name, image["file_name"]))
    add(name, change(boxes_of(image)), image["width"], image["height"])


def draw(name, pixels, boxes):
    for folder in (f"{work}/images/val2017", out):
        cv2.imwrite(f"{folder}/{name}", pixels, [cv2.IMWRITE_PNG_BILEVEL, 1] if pixels.shape[0] == 8000 else [])
    add(name, boxes, pixels.shape[1], pixels.shape[0])


box = lambda category, *xywh: dict(category_id=category, bbox=list(xywh))
for i in range(4):
    link(f"plain {i} ä 日本.jpg", i)
link("no annotation.jpg", 6, lambda boxes: [])
link("crowd only.jpg", 7, lambda boxes: [dict(b, iscrowd=1) for b in boxes])
link("every second crowd.jpg", 17, lambda boxes: [dict(b, iscrowd=i % 2) for i, b in enumerate(boxes)])
link("no area.jpg", 8, lambda boxes: boxes + [box(3, 10, 10, 0, 0), box(7, 10, 10, 0, 50), box(7, 100, 100, 50, 0)])
link("no area only.jpg", 9, lambda boxes: [box(3, 10, 10, 0, 0)])
link("outside.jpg", 10, lambda boxes: boxes + [box(3, -50, -50, 100, 100), box(5, 5000, 5000, 10, 10), box(5, -500, -500, 10, 10), box(90, 0, 0, 99999, 99999)])
link("outside only.jpg", 11, lambda boxes: [box(5, 5000, 5000, 10, 10)])
link("negative.jpg", 13, lambda boxes: boxes + [box(5, 100, 100, -20, -20), box(5, 100, 100, -20, 20)])
link("negative only.jpg", 12, lambda boxes: [box(5, 100, 100, -20, -20)])
draw("one pixel.png", np.full((1, 1, 3), 77, np.uint8), [box(3, 0, 0, 1, 1)])
draw("one row.png", np.arange(1800, dtype=np.uint32).reshape(1, 600, 3).astype(np.uint8), [box(3, 100, 0, 200, 1)])
draw("one column.png", np.arange(1800, dtype=np.uint32).reshape(600, 1, 3).astype(np.uint8), [box(44, 0, 0, 1, 300)])
large = np.zeros((8000, 8000), np.uint8)
large[2000:5000, 1500:4500] = 255
draw("8000 x 8000.png", large, [box(3, 1500, 2000, 3000, 3000), box(100, 7000, 7000, 2000, 2000)])

random.seed(1)
random.shuffle(annotations)
categories = [dict(id=i, name=n) for i, n in zip(ids, names)]
random.shuffle(categories)
for folder in (f"{work}/annotations", out):
    with open(f"{folder}/instances_val2017.json", "w") as f:
        json.dump(dict(images=images, annotations=annotations, categories=categories), f, ensure_ascii=False, indent=0)
with open(f"{out}/links.tsv", "w") as f:
    f.writelines("\t".join(pair) + "\n" for pair in links)

data = common.Coco(work, "val2017")
model = common.load(f"{shapes}/yolo_nas_pico_shapes.pth", 0.25, 8).eval()
post = PPYoloEPostPredictionCallback(score_threshold=0.01, nms_threshold=0.7, nms_top_k=1000, max_predictions=300)
metrics = [c(score_thres=0.1, top_k_predictions=300, num_cls=8, normalize_targets=True, post_prediction_callback=post) for c in (DetectionMetrics_050, DetectionMetrics_050_095)]
detections = []
with torch.no_grad():
    for image in data.images:
        x, targets, crowd, ((s, left, top),) = data.batch([image])
        y = model(x)
        for metric in metrics:
            metric.update(y, target=targets, device="cpu", inputs=x, crowd_targets=crowd)
        for x1, y1, x2, y2, score, label in np.asarray(post(y)[0]):
            detections.append(dict(image_id=image["id"], category_id=data.category_of[int(label)], score=float(score),
                                   bbox=[float((x1 - left) / s), float((y1 - top) / s), float((x2 - x1) / s), float((y2 - y1) / s)]))
numbers = {**metrics[0].compute(), **metrics[1].compute()}
with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO(f"{work}/annotations/instances_val2017.json")
    evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
    evaluation.params.imgIds = [image["id"] for image in data.images]
    evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
with open(f"{out}/wanted.txt", "w") as f:
    f.write(f"images {len(data.images)}\n")
    for value in [float(numbers["mAP@0.50"]), float(numbers["mAP@0.50:0.95"]), *evaluation.stats]:
        f.write(f"{float(value)!r}\n")
shutil.rmtree(work)
print(len(data.images), "images of", len(images))

# --- the checkpoint of a fine-tuning ---
from super_gradients.training.processing import processing

torch.manual_seed(7)
model = common.build(0.01, 1).eval()
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        torch.nn.init.uniform_(module.weight, 0.8, 1.6)
        torch.nn.init.uniform_(module.bias, -0.2, 0.4)
        torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
        torch.nn.init.uniform_(module.running_var, 0.5, 1.0)
for name, parameter in model.named_parameters():
    if "cls_pred" in name:
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    if "reg_pred" in name:
        torch.nn.init.uniform_(parameter, -0.3, 0.3)
steps = ["ReverseImageChannels", {"DetectionLongestMaxSizeRescale": {"output_shape": (640, 640)}}, {"DetectionLongestMaxSizeRescale": {"output_shape": (640, 640)}},
         {"DetectionBottomRightPadding": {"output_shape": (640, 640), "pad_value": 114}}, {"StandardizeImage": {"max_value": 255.0}},
         {"ImagePermute": {"permutation": (2, 0, 1)}}]
names = ["the 'only'\nclass"]
weights = {"module." + key: value for key, value in model.state_dict().items()}
checkpoint = {"net": {"nothing": torch.zeros(1)}, "ema_net": weights, "acc": torch.tensor(0.5), "epoch": 3,
              "processing_params": {"class_names": [np.str_(n) for n in names], "image_processor": {"ComposeProcessing": {"processings": steps}}, "iou": 0.65, "conf": 0.5}}
torch.save(checkpoint, f"{out}/roboflow.pth")
chain = processing.ComposeProcessing([getattr(processing, s)() if isinstance(s, str) else getattr(processing, next(iter(s)))(**next(iter(s.values()))) for s in steps])
type(model).get_post_prediction_callback = staticmethod(
    lambda *, conf, iou, **_: PPYoloEPostPredictionCallback(score_threshold=conf, nms_threshold=iou, nms_top_k=1000, max_predictions=300))
model.set_dataset_processing_params(class_names=names, image_processor=chain, iou=0.7, conf=0.25)
found = model.predict(f"{shapes}/images/val2017/000000000003.jpg", iou=0.7, conf=0.25, fuse_model=False, skip_image_resizing=False).prediction
with open(f"{out}/roboflow.tsv", "w") as f:
    for box, score, label in zip(found.bboxes_xyxy, found.confidence, found.labels):
        if score < 0.6:  # below, the number of candidates cuts the list
            continue
        f.write("\t".join([f"{score:.6f}", str(int(label)), *(f"{v:.2f}" for v in box)]) + "\n")
print(len(found.confidence), "boxes")
