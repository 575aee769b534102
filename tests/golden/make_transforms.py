"""super-gradients' own validation data set over whole folders, reduced to checksums. Run in the oracle environment, with the oracle's common.py on
PYTHONPATH (class Coco: COCOFormatDetectionDataset, the validation transforms, the collate function) and the shared folder as argument:

    PYTHONPATH=<shared>/oracle python tests/golden/make_transforms.py <shared> tests/data/transforms.tsv

Columns: folder, split, image id, CRC-32 of cv2.imread in RGB order, of the float32 input [3,640,640], of the targets and of the crowd targets
(float32 rows label, cx, cy, w, h), their numbers, position in the data set. Only annotated images occur; the others go by unlisted, as there.
"""
import os, sys, zlib
import cv2, numpy as np
from common import Coco

crc = lambda a: "%08x" % zlib.crc32(np.ascontiguousarray(a).tobytes())
table = open(sys.argv[2], "w")
for folder, split in (("golden/shapes", "val2017"), ("data/coco", "val2017"), ("data/coco", "train2017")):
    root = f"{sys.argv[1]}/{folder}"
    data = Coco(root, split)
    for position, image in enumerate(data.images):
        x, targets, crowd, _ = data.batch([image])
        pixels = cv2.imread(f"{root}/images/{split}/{image['file_name']}")[..., ::-1]
        rows = [t.numpy()[:, 1:].astype(np.float32) for t in (targets, crowd)]
        print(folder, split, image["id"], crc(pixels), crc(x.numpy()[0].astype(np.float32)), crc(rows[0]), crc(rows[1]), len(rows[0]), len(rows[1]),
              position, sep="\t", file=table)
