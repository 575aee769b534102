"""super-gradients' own training transforms (3.7.1) on images drawn by formula with chosen random draws, reduced to checksums, boxes and, where
exactness is not attainable (HSV), pixels. Run in the oracle environment with OpenCV 4.10 in front of its own (5.0 has another warpAffine):

    pip install --no-deps --target cv410 opencv-python-headless==4.10.0.84
    PYTHONPATH=cv410 python tests/golden/make_augment.py tests/data/augment <shared>

cases.txt holds words: `case KIND WIDTH HEIGHT SIDE SWAPPED`, the draws in the order of bnd_augment_draws (hexadecimal floats), `boxes`, `partner` and
`expect` with their count and rows x1 y1 x2 y2 label as bits of float32 (`finish` and `chain`: label cx cy w h), and the result `pixels WIDTH HEIGHT
CRC`; a CRC of 0: compare with the next pixels of hsv.bin. Pixels are bytes HWC; for `finish` and `chain` the network's float input [3,SIDE,SIDE] (CRC
of float32) or, in hsv.bin, times 255 as bytes.
photographs.txt: whole training samples of the shared folder's data/coco, train2017, through super-gradients' data set (without HSV): id, SWAPPED,
draws as above with the partner's place in images[] before its flip, CRC of the input, number of targets and CRC of their rows.
"""
import os, random, sys, zlib
import cv2, numpy as np
import super_gradients.training.transforms.transforms as T
from super_gradients.training.samples import DetectionSample

assert cv2.__version__.startswith("4.10")
out = open(f"{sys.argv[1]}/cases.txt", "w"); binary = open(f"{sys.argv[1]}/hsv.bin", "wb")
crc = lambda a: "%08x" % zlib.crc32(np.ascontiguousarray(a).tobytes())
queue, shares = [], []  # what the patched generators answer next

random.random = lambda: queue.pop(0)
random.uniform = lambda a, b: a + (b - a) * queue.pop(0)
random.randint = lambda a, b: a + int(queue.pop(0) * (b - a + 1))
np.random.uniform = lambda low, high, size: np.array([low + (high - low) * queue.pop(0) for _ in range(size)])
np.random.randint = lambda low, high, size: np.array([low + int(queue.pop(0) * (high - low)) for _ in range(size)])
affine_matrix = T.get_affine_matrix
def corrected_matrix(input_size, target_size, *args):  # translation by the right sides: only that uses target_size
    return affine_matrix(input_size, tuple(reversed(target_size)), *args)

state = 1
def uniform():
    global state
    state = (state * 1664525 + 1013904223) % 2**32
    return (state >> 8) / 2**24

def image(width, height, second=False):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    i = 7 * x + 13 * y + 31 * c + x * y // 17 + 3 * (x ^ y)
    return ((255 - 3 * i if second else i) & 255).astype(np.uint8)

def boxes(width, height, count):
    rows = []
    for i in range(count):
        w, h = uniform() ** 2 * width, uniform() ** 2 * height
        x, y = uniform() * width - w / 4, uniform() * height - h / 4  # some reach out of the image
        rows.append([x, y, x + w, y + h, int(uniform() * 80)])
    return np.array(rows, np.float32).reshape(-1, 5)

def sample(pixels, rows):
    return DetectionSample(image=pixels.copy(), bboxes_xyxy=rows[:, :4].copy(), labels=rows[:, 4].copy())

def word(value): return float(value).hex() if isinstance(value, (float, np.floating)) else str(int(value))
def table(name, rows):
    print(name, len(rows), *("%08x" % v for v in np.array(rows, np.float32).reshape(-1).view(np.uint32)), file=out)

def draws():
    u = [round(uniform() * 64) / 64 * 0.999 for _ in range(24)]
    return dict(angle=u[0], scale=u[1], shear_x=u[2], shear_y=u[3], x=u[4], y=u[5], rgb=u[6], hsv=u[7], gains=u[8:11], selected=u[11:14],
                flip=u[14], mixup=u[15], partner_flip=u[16], partner_scale=u[17], partner_y=u[18], partner_x=u[19])

def run(kind, width, height, side=0, swapped=0, degrees=0, shear=0, partner_size=None, count=7, fixed={}, pixels_in_file=False):
    d = draws() | fixed
    gains = (np.array([-1 + 2 * u for u in d["gains"]]) * [18, 30, 30] * [int(2 * u) for u in d["selected"]]).astype(np.int16)
    first, rows = image(width, height), boxes(width, height, count)
    affine = T.DetectionRandomAffine(degrees=degrees, translate=0.25, scales=[0.5, 1.5], shear=float(shear), target_size=None,
                                     filter_box_candidates=True, wh_thr=2, area_thr=0.1, ar_thr=20, border_value=114)
    reverse, hsv, flip = T.DetectionRGB2BGR(prob=0.5), T.DetectionHSV(prob=0.5, hgain=18, sgain=30, vgain=30), T.DetectionHorizontalFlip(prob=0.5)
    mixup = T.DetectionMixup(input_dim=None, mixup_scale=[0.5, 1.5], prob=0.5, flip_prob=0.5)
    T.get_affine_matrix = affine_matrix if swapped else corrected_matrix
    between = lambda low, high, u: low + (high - low) * u
    print("case", kind, width, height, side, swapped, word(between(-degrees, degrees, d["angle"]) + 0.0), word(between(0.5, 1.5, d["scale"])),
          word(between(-shear, shear, d["shear_x"]) + 0.0), word(between(-shear, shear, d["shear_y"]) + 0.0), word(between(0.25, 0.75, d["x"])),
          word(between(0.25, 0.75, d["y"])), word(d["rgb"] < 0.5), word(d["hsv"] < 0.5), *(word(g) for g in gains), word(d["flip"] < 0.5),
          word(d["mixup"] < 0.5), word(d["partner_flip"] < 0.5), word(between(0.5, 1.5, d["partner_scale"])), word(d["partner_x"]),
          word(d["partner_y"]), file=out)
    table("boxes", rows)
    if partner_size:
        second, partner_rows = image(*partner_size, second=True), boxes(*partner_size, 5)
        print("partner_size", *partner_size, file=out); table("partner", partner_rows)
    def steps(s, names):
        for name in names:
            if name == "affine": queue[:] = [d[k] for k in ("angle", "scale", "shear_x", "shear_y", "x", "y")]; s = affine.apply_to_sample(s)
            if name == "reverse": queue[:] = [d["rgb"]]; s = reverse.apply_to_sample(s)
            if name == "hsv": queue[:] = [d["hsv"], *d["gains"], *d["selected"]]; s = hsv.apply_to_sample(s)
            if name == "flip": queue[:] = [d["flip"]]; s = flip.apply_to_sample(s)
            if name == "mixup" and d["mixup"] < 0.5:
                # data sets hand out blue, green, red: the second image's formula stands for red, green, blue as the first one's does
                other = sample(second[..., ::-1], partner_rows)
                s.additional_samples = [other]
                queue[:] = [d["partner_flip"], d["partner_scale"], d["partner_y"], d["partner_x"]]
                if int(s.image.shape[0] * between(0.5, 1.5, d["partner_scale"])) <= s.image.shape[0]: queue.pop(2)
                s = mixup.apply_to_sample(s)
            if name == "finish":
                s = T.DetectionPaddedRescale(input_dim=(side, side), pad_value=114).apply_to_sample(s)
                s = T.DetectionStandardize(255.0).apply_to_sample(s)
        return s
    network_input = kind in ("finish", "chain")
    if kind == "chain":
        s = steps(sample(first[..., ::-1], rows), ("affine", "reverse", "hsv", "flip", "mixup", "finish"))
    else:
        s = steps(sample(first, rows), (kind,))
    if network_input:
        target = np.concatenate([s.bboxes_xyxy, s.labels[:, None]], axis=1)
        to_rows = T.DetectionTargetsFormatTransform(input_dim=(side, side), output_format="LABEL_CXCYWH")
        result = to_rows({"image": s.image, "target": target})["target"]
    else:
        result = np.concatenate([s.bboxes_xyxy, s.labels[:, None]], axis=1)
    table("expect", result.astype(np.float32))
    pixels = s.image.astype(np.float32) if network_input else s.image
    if pixels_in_file: binary.write(np.rint(pixels * 255).astype(np.uint8).tobytes() if network_input else pixels.tobytes())
    print("pixels", side or pixels.shape[1], side or pixels.shape[0], "0" if pixels_in_file else crc(pixels), file=out)

on, off = 0.25, 0.75
for width, height in ((640, 480), (427, 640), (64, 64), (33, 17), (1, 5), (640, 3)):
    for swapped in (0, 1):
        run("affine", width, height, swapped=swapped, count=12)
        run("affine", width, height, swapped=swapped, count=12)
for _ in range(6): run("affine", 97, 61, degrees=25, shear=8, count=9)
run("affine", 200, 100, degrees=180, count=9, fixed=dict(angle=0.75)) # by a right angle
for _ in range(6): run("hsv", 64, 12, fixed=dict(hsv=on), pixels_in_file=True)
run("hsv", 64, 4, fixed=dict(hsv=on, gains=[0.999, 0.999, 0.999], selected=[0.9, 0.9, 0.9]), pixels_in_file=True)
run("hsv", 64, 4, fixed=dict(hsv=on, gains=[0, 0, 0], selected=[0.9, 0.9, 0.9]), pixels_in_file=True)
for width, height in ((64, 48), (33, 7), (1, 1)): run("flip", width, height, fixed=dict(flip=on))
for size, partner in (((64, 48), (64, 48)), ((640, 427), (480, 640)), ((50, 64), (64, 31)), ((33, 64), (64, 64)), ((64, 5), (20, 64)),
                      ((639, 480), (640, 639))):
    for scale in (0, 0.5, 0.25, 0.999, None, None):
        run("mixup", *size, partner_size=partner, fixed=dict(mixup=on) | ({} if scale is None else dict(partner_scale=scale)))
for size, side in (((64, 48), 64), ((639, 480), 640), ((31, 64), 64), ((100, 70), 64), ((640, 480), 320)): run("finish", *size, side=side, count=15)
for _ in range(12): run("chain", 640, 480, side=640, partner_size=(427, 640), count=15, fixed=dict(hsv=off))
for _ in range(6): run("chain", 320, 320, side=320, swapped=1, partner_size=(320, 200), count=15, fixed=dict(hsv=off))
for _ in range(6): run("chain", 64, 48, side=64, partner_size=(64, 64), count=9, fixed=dict(hsv=on), pixels_in_file=True)

# Whole samples of a real data set. Both offsets of mixup take the same draw, so that it does not matter which of them the original asks for.
import json
from super_gradients.training.datasets.detection_datasets.coco_format_detection import COCOFormatDetectionDataset
root = f"{sys.argv[2]}/data/coco"
data = json.load(open(f"{root}/annotations/instances_train2017.json"))
photographs = open(f"{sys.argv[1]}/photographs.txt", "w")
dataset = COCOFormatDetectionDataset(
    data_dir=root, json_annotation_file="annotations/instances_train2017.json", images_dir="images/train2017", input_dim=(640, 640), with_crowd=False,
    cache_annotations=True, ignore_empty_annotations=True, all_classes_list=[c["name"] for c in sorted(data["categories"], key=lambda c: c["id"])],
    transforms=[T.DetectionRandomAffine(degrees=0, translate=0.25, scales=[0.5, 1.5], shear=0.0, target_size=None, filter_box_candidates=True,
                                        wh_thr=2, area_thr=0.1, ar_thr=20, border_value=114),
                T.DetectionRGB2BGR(prob=0.5), T.DetectionHSV(prob=0.5, hgain=18, sgain=30, vgain=30), T.DetectionHorizontalFlip(prob=0.5),
                T.DetectionMixup(input_dim=None, mixup_scale=[0.5, 1.5], prob=0.5, flip_prob=0.5),
                T.DetectionPaddedRescale(input_dim=(640, 640), pad_value=114), T.DetectionStandardize(255.0),
                T.DetectionTargetsFormatTransform(output_format="LABEL_CXCYWH")])
id_of = {image.get("file_name"): image["id"] for image in data["images"]}
for i in range(len(dataset)):
    d, swapped, place = draws(), i % 2, uniform()
    T.get_affine_matrix = affine_matrix if swapped else corrected_matrix
    queue[:] = [d[k] for k in ("angle", "scale", "shear_x", "shear_y", "x", "y", "rgb")] + [off] + \
               [d[k] for k in ("flip", "mixup")]
    if d["mixup"] < 0.5: queue += [place, d["partner_flip"], d["partner_scale"], d["partner_x"], d["partner_x"]]
    x, target = dataset[i]
    path = dataset._get_sample_annotations(i, ignore_empty_annotations=True)["img_path"]
    between = lambda low, high, u: low + (high - low) * u
    print(id_of[os.path.basename(path)], swapped, word(between(0.5, 1.5, d["scale"])), word(between(0.25, 0.75, d["x"])),
          word(between(0.25, 0.75, d["y"])), word(d["rgb"] < 0.5), word(d["flip"] < 0.5), word(d["mixup"] < 0.5), int(place * len(data["images"])),
          word(d["partner_flip"] < 0.5), word(between(0.5, 1.5, d["partner_scale"])), word(d["partner_x"]), crc(x.astype(np.float32)), len(target), crc(target.astype(np.float32)),
          file=photographs)
