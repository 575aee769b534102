"""Writes tests/data/sg_metrics/*.txt: small drawn images with what super-gradients' DetectionMetrics make of them.

Run as `python tests/golden/sg_metrics.py` in an environment with super-gradients 3.7.1 and torch 2.7.1 (CPU).
Each file: classes, canvas, score threshold, top-k; per image the detections (x1 y1 x2 y2 score label), targets and crowd targets (label cx cy w h);
then for IoU 0.50 and for 0.50:0.95 precision, recall, F1, mAP, best score threshold, and the average precision of each class.

The best score threshold is the place of a maximum of F1 over 101 scores. Where several are equal, the original's rounding (float32, its vector width)
chooses among them; what is written here is the lowest of those within 1e-6 of its maximum.
"""
import os
import numpy as np
import torch
from super_gradients.training.metrics import DetectionMetrics_050, DetectionMetrics_050_095

FOLDER = os.path.join(os.path.dirname(__file__), "..", "data", "sg_metrics")


def draw(seed, images, classes, targets, detections, levels=0, grid=0, crowd=2, width=640, height=480):
    rng = np.random.default_rng(seed)

    def boxes(count):
        box = np.concatenate([rng.random((count, 2)) * [width, height], 4 + rng.random((count, 2)) * rng.choice([60, 200])], 1)
        return np.maximum(np.round(box / grid) * grid, [0, 0, 4, 4]) if grid else np.round(box, 2)

    def rows(most):
        count = int(rng.integers(0, most + 1))
        return np.concatenate([rng.integers(0, classes, (count, 1)), boxes(count)], 1)

    drawn = []
    for _ in range(images):
        target, crowded, count = rows(targets), rows(crowd), int(rng.integers(0, detections + 1))
        box, label, source = boxes(count), rng.integers(0, classes, count), np.concatenate([target, crowded])
        if len(source):
            chosen, use = rng.integers(0, len(source), count), rng.random(count) < 0.7
            near = source[chosen, 1:] + np.round(rng.normal(0, rng.choice([0, 2, 8]), (count, 4)))
            box, label = np.where(use[:, None], near, box), np.where(use, source[chosen, 0], label)
        score = rng.random(count)
        score = np.sort(np.ceil(score * levels) / levels if levels else np.round(score + 0.001, 3))[::-1]
        found = np.concatenate([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2, score[:, None], label[:, None]], 1)
        drawn.append([part.astype(np.float32) for part in (found, target, crowded)])
    return drawn


def evaluate(cls, drawn, classes, width, height, score_threshold, top_k):
    given = lambda rows, device=None: [torch.from_numpy(r.copy()) for r in rows]
    metric = cls(score_thres=score_threshold, top_k_predictions=top_k, num_cls=classes, normalize_targets=True, include_classwise_ap=True,
                 class_names=[str(c) for c in range(classes)], post_prediction_callback=given)
    for start in range(0, len(drawn), 3):
        batch = drawn[start : start + 3]
        numbered = lambda k: torch.from_numpy(np.concatenate([np.insert(image[k], 0, i, axis=1) for i, image in enumerate(batch)]))
        canvas = torch.zeros(1, 3, height, width)
        metric.update([image[0] for image in batch], target=numbered(1), device="cpu", inputs=canvas, crowd_targets=numbered(2))
    seen, original = [], torch.argmax
    torch.argmax = lambda values, *rest, **more: seen.append(values) or original(values, *rest, **more)
    try:
        result = metric.compute()
    finally:
        torch.argmax = original
    suffix, f1 = metric._get_range_str(), seen[-1]
    best = torch.linspace(0, 1, 101)[int((f1 >= f1.max() - 1e-6).nonzero()[0])] if not f1.isnan().any() else result["Best_score_threshold"]
    return ([result[name + suffix] for name in ("Precision", "Recall", "F1", "mAP")] + [float(best)],
            [result[f"AP{suffix}_{c}"] for c in range(classes)])


def write(name, classes, drawn, width=640, height=480, score_threshold=0.1, top_k=300):
    text = lambda values: " ".join("%.9g" % v for v in values) + "\n"
    with open(os.path.join(FOLDER, name + ".txt"), "w") as file:
        file.write(f"options {classes} {width} {height} {score_threshold} {top_k}\nimages {len(drawn)}\n")
        for image in drawn:
            file.write(f"image {' '.join(str(len(part)) for part in image)}\n")
            for part in image:
                file.writelines(text(row) for row in part)
        for cls in (DetectionMetrics_050, DetectionMetrics_050_095):
            numbers, ap = evaluate(cls, drawn, classes, width, height, score_threshold, top_k)
            file.write(text(numbers) + text(ap))


os.makedirs(FOLDER, exist_ok=True)
write("plain", 3, draw(1, 8, 3, 6, 12))
write("ties", 2, draw(2, 6, 2, 6, 60, levels=4, grid=16))
write("quantized", 4, draw(3, 8, 4, 8, 50, levels=16))
write("crowd", 2, draw(4, 6, 2, 4, 25, levels=16, grid=8, crowd=6))
write("top_k", 3, draw(5, 5, 3, 6, 40, levels=8, grid=8), top_k=5)
write("high_threshold", 3, draw(6, 6, 3, 6, 15), score_threshold=0.99)
write("no_targets", 2, draw(7, 4, 2, 0, 6))
write("no_detections", 3, draw(8, 4, 3, 5, 0))
write("many_classes", 40, draw(9, 10, 40, 12, 20, levels=32))
write("small_canvas", 2, draw(10, 6, 2, 5, 12, grid=8), width=400, height=300)
# 20 targets found one after the other, a false positive after each: recall meets 13 / 20, which is below the grid's float for 0.65.
places = np.array([[40 + 60 * (i % 10), 100 + 200 * (i // 10)] for i in range(20)], np.float32)
right = [[x, y, x + 20, y + 20, 0.99 - 0.02 * i, 0] for i, (x, y) in enumerate(places)]
wrong = [[x, y + 50, x + 20, y + 70, 0.98 - 0.02 * i, 0] for i, (x, y) in enumerate(places)]
rows = np.array([row for pair in zip(right, wrong) for row in pair], np.float32)
write("recall_grid", 1, [[rows, np.array([[0, x + 10, y + 10, 20, 20] for x, y in places], np.float32), np.zeros((0, 5), np.float32)]])
