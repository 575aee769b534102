"""Writes tests/data/nms/{torch_order,postprocess}.txt: what torch and super-gradients make of scores with many ties.

Run as `python tests/golden/nms.py` in an environment with torch 2.7.1, torchvision 0.22.1 and super-gradients 3.7.1 (CPU).
The inputs are drawn by the linear congruential generator below, which tests/unit/test_nms.c has too, so only hashes of the outputs are stored.
"""
import os
import numpy as np
import torch
from super_gradients.training.models.detection_models.pp_yolo_e import PPYoloEPostPredictionCallback

FOLDER = os.path.join(os.path.dirname(__file__), "..", "data", "nms")


def uniform(seed, count):
    values, state = np.empty(count), seed
    for i in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values[i] = (state >> 8) / 2**24
    return values


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def draw_scores(seed, count, levels):
    """u^4, on a grid of `levels` steps unless levels is 0."""
    u = uniform(seed, count)
    score = (u * u) * (u * u)
    return (np.floor(score * levels + 0.5) / levels if levels else score).astype(np.float32)


def draw_boxes(seed, anchors, grid):
    """Overlapping boxes around 36 centres; rounded to multiples of `grid` unless it is 0."""
    v, a = uniform(seed, anchors * 4).reshape(-1, 4), np.arange(anchors)
    cx, cy = 60 + 100 * (a % 6) + 12 * v[:, 0], 60 + 100 * ((a // 6) % 6) + 12 * v[:, 1]
    w, h = 60 + 20 * v[:, 2], 60 + 20 * v[:, 3]
    boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1)
    return (np.floor(boxes / grid + 0.5) * grid if grid else boxes).astype(np.float32)


# McIlroy's adversary ("A killer adversary for quicksort", 1999) played against std::nth_element of libstdc++ for place 58 of 60: it reaches the
# depth limit there.
ADVERSARY = [
    56, 1, 46, 3, 52, 5, 44, 7, 58, 9, 42, 11, 50, 13, 40, 15, 54, 17, 38, 19, 57, 55, 53, 51, 49, 47, 45, 43, 41, 48, 0, 2, 4, 6, 8, 10,
    12, 14, 16, 18, 39, 36, 37, 34, 35, 32, 33, 30, 31, 28, 29, 26, 27, 24, 25, 22, 23, 20, 21, 60
]


def torch_order():
    with open(os.path.join(FOLDER, "torch_order.txt"), "w") as file:
        file.write("# seed count levels k: FNV-1a of argsort(descending=True) and of topk(k).indices, both as little-endian uint32\n")
        cases = [(1, 4, 1), (16, 4, 5), (17, 4, 5), (17, 1, 17), (40, 3, 20), (100, 16, 1), (100, 0, 99), (1000, 1, 500), (1000, 128, 300),
                 (5000, 8, 1000), (20000, 128, 1000), (20000, 2, 1000), (70000, 128, 1000), (70000, 16, 100), (64000, 128, 1000),
                 (3, 1, 2), (2, 1, 2)]
        for seed, (count, levels, k) in enumerate(cases):
            scores = torch.from_numpy(draw_scores(seed, count, levels))
            order = torch.argsort(scores, descending=True).numpy().astype("<u4")
            best = torch.topk(scores, k).indices.numpy().astype("<u4")
            file.write(f"{seed} {count} {levels} {k} {fnv(order.tobytes()):016x} {fnv(best.tobytes()):016x}\n")
        # A sequence that defeats the median of three, so that the depth limit is reached (Musser 1997).
        for count in (64, 1000, 4096):
            killer, half = np.empty(count, np.float32), count // 2
            for i in range(1, half + 1):
                killer[i - 1] = i if i % 2 else half + i - 1
                killer[half + i - 1] = 2 * i
            scores = torch.from_numpy(-killer)
            order = torch.argsort(scores, descending=True).numpy().astype("<u4")
            best = torch.topk(scores, half).indices.numpy().astype("<u4")
            file.write(f"-1 {count} 0 {half} {fnv(order.tobytes()):016x} {fnv(best.tobytes()):016x}\n")
        scores = torch.from_numpy(-np.array(ADVERSARY, np.float32))
        order = torch.argsort(scores, descending=True).numpy().astype("<u4")
        best = torch.topk(scores, 59).indices.numpy().astype("<u4")
        file.write(f"-2 60 0 59 {fnv(order.tobytes()):016x} {fnv(best.tobytes()):016x}\n")


def postprocess():
    with open(os.path.join(FOLDER, "postprocess.txt"), "w") as file:
        file.write("# seed anchors classes levels grid, score threshold, top-k, IoU threshold, most detections, multi-label, class-agnostic:\n"
                   "# detections kept and FNV-1a of their rows x1 y1 x2 y2 score label (little-endian float32)\n")
        cases = [(600, 4, 0, 0, 0.01, 1000, 0.7, 300, 1, 0), (600, 4, 128, 0, 0.01, 1000, 0.7, 300, 1, 0),
                 (600, 4, 16, 4, 0.01, 1000, 0.5, 300, 1, 0), (2000, 8, 128, 0, 0.01, 1000, 0.7, 300, 1, 0),
                 (2000, 8, 128, 0, 0.01, 1000, 0.7, 300, 1, 1), (2000, 8, 128, 0, 0.25, 1024, 0.7, 300, 1, 0),
                 (2000, 8, 128, 8, 0.25, 5000, 0.6, 10000, 1, 0), (2000, 8, 4, 0, 0.25, 1024, 0.7, 300, 0, 0),
                 (2000, 8, 4, 8, 0.5, 1024, 0.3, 300, 0, 1), (8400, 80, 128, 0, 0.01, 1000, 0.7, 300, 1, 0),
                 (8400, 2, 16, 0, 0.01, 20, 0.7, 300, 1, 0), (50, 3, 16, 0, 0.01, 1000, 0.7, 5, 1, 0), (50, 3, 16, 0, 0.99, 1000, 0.7, 300, 1, 0)]
        for seed, case in enumerate(cases, start=100):
            anchors, classes, levels, grid, score, top_k, iou, most, multi_label, agnostic = case
            callback = PPYoloEPostPredictionCallback(score_threshold=score, nms_threshold=iou, nms_top_k=top_k, max_predictions=most,
                                                     multi_label_per_box=bool(multi_label), class_agnostic_nms=bool(agnostic))
            scores = torch.from_numpy(draw_scores(seed, anchors * classes, levels).reshape(1, anchors, classes))
            boxes = torch.from_numpy(draw_boxes(seed + 1000, anchors, grid)[None])
            rows = callback((boxes, scores))[0].numpy().astype("<f4")
            file.write(f"{seed} {' '.join(map(str, case))} {len(rows)} {fnv(rows.tobytes()):016x}\n")


os.makedirs(FOLDER, exist_ok=True)
torch_order()
postprocess()
