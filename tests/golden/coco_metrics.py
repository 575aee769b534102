"""Writes tests/data/coco_metrics/*.txt: small drawn ground truths and detections with COCOeval's numbers.

Run as `python tests/golden/coco_metrics.py` in an environment with pycocotools 2.0.11 and numpy 2.
Each file: the image and category ids, the ids evaluated, the ground truth (id image category x y w h area crowd), the detections (image category x y
w h score), the twelve numbers, and AP and AP50 of each category. Numbers are written so that they read back exactly.
"""
import contextlib, io, os
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FOLDER = os.path.join(os.path.dirname(__file__), "..", "data", "coco_metrics")


def draw(seed, images, categories, truths, detections, grid=0, levels=0, first_id=1, crowd=0.15, empty=0.0):
    """grid: boxes on multiples of it, so that overlaps tie; levels: scores on that many steps; empty: share of zero-width detections."""
    rng = np.random.default_rng(seed)
    image_ids, category_ids = [int(v) for v in rng.permutation(1000)[:images]], [int(v) for v in rng.permutation(90)[:categories]]
    on_grid = lambda box: [float(v) for v in (np.round(np.array(box) / grid) * grid if grid else np.round(box, 2))]
    truth, found, annotation = [], [], first_id
    for image in image_ids:
        for _ in range(int(rng.integers(0, truths + 1))):
            box = on_grid([*(rng.random(2) * 500), *(rng.random(2) * rng.choice([20, 80, 300]))])
            truth.append(dict(id=annotation, image_id=image, category_id=int(rng.choice(category_ids)), bbox=box,
                              area=box[2] * box[3] * float(rng.choice([0.75, 1])), iscrowd=int(rng.random() < crowd)))
            annotation += 1
        own = [t for t in truth if t["image_id"] == image]
        for _ in range(int(rng.integers(0, detections + 1))):
            box, category = on_grid([*(rng.random(2) * 500), *(rng.random(2) * 100)]), int(rng.choice(category_ids))
            if own and rng.random() < 0.6:
                chosen = own[rng.integers(len(own))]
                box, category = on_grid(np.array(chosen["bbox"]) + rng.normal(0, rng.choice([0, 2, 8]), 4)), chosen["category_id"]
            if rng.random() < empty:
                box[2] = 0.0
            score = float(rng.random())
            found.append(dict(image_id=image, category_id=category, bbox=box, score=round(score * levels) / levels if levels else round(score, 3)))
    return dict(images=[dict(id=i) for i in image_ids], categories=[dict(id=c, name=str(c)) for c in category_ids], annotations=truth), found


def evaluate(truth, found, images):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        e = COCOeval(coco, coco.loadRes([dict(d) for d in found]), "bbox")
        e.params.imgIds = list(images)
        e.evaluate(), e.accumulate(), e.summarize()
    mean = lambda values: values[values > -1].mean() if (values > -1).any() else -1.0
    place = [sorted(c["id"] for c in truth["categories"]).index(c["id"]) for c in truth["categories"]]
    precision = e.eval["precision"][:, :, :, 0, 2]
    return e.stats, [mean(precision[:, :, k]) for k in place], [mean(precision[0, :, k]) for k in place]


def write(name, truth, found, images):
    numbers, ap, ap50 = evaluate(truth, found, images)
    exact = lambda values: " ".join(repr(float(v)) for v in values)
    ids = lambda values: " ".join(map(str, values))
    with open(os.path.join(FOLDER, name + ".txt"), "w") as file:
        file.write(f"evaluate {len(images)}\n{ids(images)}\n")
        file.write(f"categories {len(truth['categories'])}\n{ids(c['id'] for c in truth['categories'])}\n")
        file.write(f"truth {len(truth['annotations'])}\n")
        for t in truth["annotations"]:
            file.write(f"{t['id']} {t['image_id']} {t['category_id']} {exact(t['bbox'])} {t['area']!r} {t['iscrowd']}\n")
        file.write(f"detections {len(found)}\n")
        for d in found:
            file.write(f"{d['image_id']} {d['category_id']} {exact(d['bbox'])} {d['score']!r}\n")
        file.write(f"numbers 12\n{exact(numbers)}\nap {len(ap)}\n{exact(ap)}\nap50 {len(ap50)}\n{exact(ap50)}\n")


def case(name, **settings):
    truth, found = draw(**settings)
    write(name, truth, found, [image["id"] for image in truth["images"]])


os.makedirs(FOLDER, exist_ok=True)
case("plain", seed=1, images=8, categories=3, truths=6, detections=20)
case("ties", seed=2, images=8, categories=2, truths=8, detections=30, grid=16, levels=4)
case("crowd", seed=3, images=6, categories=2, truths=8, detections=30, grid=8, levels=32, crowd=0.5)
case("empty_boxes", seed=4, images=6, categories=3, truths=3, detections=12, empty=0.3)
case("many_detections", seed=6, images=2, categories=1, truths=8, detections=300, levels=64)
case("annotation_zero", seed=7, images=3, categories=1, truths=4, detections=12, first_id=0)
case("no_truth", seed=8, images=3, categories=2, truths=0, detections=5)
case("sparse_categories", seed=9, images=5, categories=20, truths=4, detections=10)
truth, found = draw(seed=5, images=8, categories=3, truths=5, detections=15)
ids = [image["id"] for image in truth["images"]]
write("subset", truth, found, [ids[5], ids[1], ids[5], ids[3]])

# Annotation 0 with a perfect detection; an overlap of exactly 0.8999999999999999, which is COCO's ninth threshold and less than 0.9.
truth = dict(images=[dict(id=1), dict(id=2)], categories=[dict(id=1, name="a"), dict(id=2, name="b")],
             annotations=[dict(id=0, image_id=1, category_id=1, bbox=[10.0, 10.0, 50.0, 50.0], area=2500.0, iscrowd=0),
                          dict(id=1, image_id=1, category_id=1, bbox=[200.0, 10.0, 50.0, 50.0], area=2500.0, iscrowd=0),
                          dict(id=2, image_id=2, category_id=2, bbox=[0.0, 0.0, 94.4, 85.8], area=8000.0, iscrowd=0)])
found = [dict(image_id=1, category_id=1, bbox=[10.0, 10.0, 50.0, 50.0], score=0.9),
         dict(image_id=1, category_id=1, bbox=[200.0, 10.0, 50.0, 50.0], score=0.8),
         dict(image_id=2, category_id=2, bbox=[0.0, 0.0, 84.96, 85.8], score=0.7)]
write("edges", truth, found, [1, 2])
