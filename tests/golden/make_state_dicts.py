"""Names, order and shapes of super-gradients' state dicts for scaled networks. Run in the oracle environment, with the oracle's common.py on PYTHONPATH:

    PYTHONPATH=<shared>/oracle python tests/golden/make_state_dicts.py > tests/data/yolo_nas/scaled.tsv

variant, width, classes, number of tensors, SHA-256 of the lines "name [d0,d1]" of the network in training form.
"""
import hashlib, sys
from common import build

for variant, width, classes in (("s", 1.0, 80), ("m", 1.0, 80), ("l", 1.0, 80), ("s", 0.25, 5), ("m", 0.5, 3), ("l", 0.37, 1), ("s", 0.01, 2),
                                ("m", 0.1, 20), ("l", 0.75, 91), ("s", 1.3, 4), ("m", 0.61, 7), ("s", 0.999, 80)):
    state = build(width, classes, variant).state_dict()
    text = "".join(f"{name} [{','.join(map(str, value.shape))}]\n" for name, value in state.items())
    print(variant.upper(), repr(width), classes, len(state), hashlib.sha256(text.encode()).hexdigest(), sep="\t")
    sys.stdout.flush()
