"""Writes tests/data/loss/*: small drawn predictions and targets with what super-gradients' PPYoloELoss makes of them.

Run as `python tests/golden/make_loss.py` in an environment with super-gradients 3.7.1 and torch 2.7.1 (CPU).

NAME.txt: side, classes, reg_max, images, number of targets, drawing (see logits()); the targets (image label cx cy w h); loss_cls, loss_iou, loss_dfl,
loss, sum of scores, number of positives; the positives (image anchor label score) by image and anchor. NAME.f32: float32, little endian, the gradient
of all class logits, then that of the box logits of the positive anchors (it is zero elsewhere, which is checked here).
"""
import os
import numpy as np
import torch
from super_gradients.training.losses.ppyolo_loss import PPYoloELoss

FOLDER = os.path.join(os.path.dirname(__file__), "..", "data", "loss")


def uniform(seed, count):
    values, state = np.empty(count), seed
    for i in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        values[i] = (state >> 8) / 2**24
    return values


def logits(images, anchors, classes, bins, drawing):
    """x = 8u - 7, z = 4u - 2 - 0.5 bin, rounded to multiples of 1 / levels when that is not 0, times `gain`; with gain 0: x = -4.6, z = 0."""
    levels, gain = drawing
    x = 8 * uniform(1, images * anchors * classes) - 7
    z = 4 * uniform(2, images * anchors * 4 * bins).reshape(-1, bins) - 2 - 0.5 * np.arange(bins)
    if levels:
        x, z = np.floor(x * levels) / levels, np.floor(z * levels) / levels
    x, z = (x * gain, z * gain) if gain else (x * 0 - 4.6, z * 0)
    return x.astype(np.float32).reshape(images, anchors, classes), z.astype(np.float32).reshape(images, anchors, 4 * bins)


def grid(side):
    points, strides = [], []
    for stride in (8, 16, 32):
        for j in range(side // stride):
            for i in range(side // stride):
                points.append(((i + 0.5) * stride, (j + 0.5) * stride))
                strides.append([stride])
    return torch.tensor(points), torch.tensor(strides, dtype=torch.float32)


def write(name, side, classes, reg_max, images, targets, drawing):
    points, strides = grid(side)
    x, z = logits(images, len(points), classes, reg_max + 1, drawing)
    x, z = torch.tensor(x, requires_grad=True), torch.tensor(z, requires_grad=True)
    criterion = PPYoloELoss(num_classes=classes, use_static_assigner=False)
    assigned, forward = [], criterion.assigner.forward
    criterion.assigner.forward = lambda *a, **k: assigned.append(forward(*a, **k)) or assigned[0]
    targets = torch.tensor(targets, dtype=torch.float32).reshape(-1, 6)
    loss, parts = criterion((x, z, None, points, [len(points)], strides), targets)
    loss.backward()
    labels, _, scores = assigned[0]
    positive = labels != classes
    zero = z.grad if z.grad is not None else torch.zeros_like(z)
    assert not zero[~positive].any()
    os.makedirs(FOLDER, exist_ok=True)
    with open(os.path.join(FOLDER, name + ".txt"), "w") as f:
        print(side, classes, reg_max, images, len(targets), *drawing, file=f)
        for row in targets:
            print(int(row[0]), int(row[1]), *(f"{v:.9g}" for v in row[2:].tolist()), file=f)
        print(*(f"{v:.9g}" for v in parts.tolist()), f"{float(scores.double().sum()):.12g}", int(positive.sum()), file=f)
        for b, a in positive.nonzero().tolist():
            print(b, a, int(labels[b, a]), f"{float(scores[b, a].sum()):.9g}", file=f)
    np.concatenate([x.grad.numpy().ravel(), zero[positive].numpy().ravel()]).astype("<f4").tofile(os.path.join(FOLDER, name + ".f32"))


def boxes(seed, images, count, classes, side, least, most, grid=0, wider=0):
    u = uniform(seed, images * count * 5).reshape(-1, 5)
    rows = []
    for i, (label, cx, cy, w, h) in enumerate(u):
        row = [cx * side, cy * side, least + (most - least) * w * w, least + (most - least) * h * h]
        row = np.round(np.array(row) / grid) * grid if grid else np.array(row)
        rows.append([i // count, int(label * classes), *(row + [0, 0, wider, wider])])
    return rows


some = boxes(3, 2, 8, 5, 96, 4, 90)
write("drawn", 96, 5, 16, 2, some, (0, 1))
write("ties", 96, 5, 16, 2, boxes(4, 2, 8, 5, 96, 16, 90, grid=8), (1, 1))
# all predictions equal, anchors in symmetric places; 2 wider than the grid, so that no edge meets a predicted one: the gradient has a step there
write("initial", 96, 5, 16, 2, boxes(5, 2, 5, 5, 96, 16, 90, grid=8, wider=2), (0, 0))
write("duplicates", 96, 5, 16, 2, some + some[::2] + some[1::3], (2, 1))
# second image empty; boxes without an anchor point; one whose coordinates sum to less than 0, which the original takes for padding
write("one_class", 96, 1, 16, 3, [[0, 0, 48, 48, 80, 60], [0, 0, 20, 20, 2, 2], [0, 0, 5, 5, 0, 0], [2, 0, -20, 10, 60, 30], [2, 0, 30, 30, 60, 60],
                                  [2, 0, 30, 31, 60, 59]], (0, 1))
write("heap", 256, 2, 16, 2, boxes(6, 2, 6, 2, 256, 4, 240), (0, 1))
write("heap_ties", 256, 2, 7, 2, boxes(7, 2, 6, 2, 256, 16, 240, grid=16), (1, 1))
write("hopeless", 96, 5, 16, 2, some[:1], (0, 30))  # scores sum to less than 1
write("nothing", 96, 5, 16, 2, [], (0, 1))
