"""Writes tests/data/checkpoints/: tiny files in every form torch.save can produce, and some that it cannot.

    python tests/golden/make_checkpoints.py            writes the files (torch 2.7.1, numpy 1.26)
    python tests/golden/make_checkpoints.py FILE...    prints what test_checkpoint_real.c expects of real checkpoints: "file, key, tensors, CRC-32
                                                       over name, NUL and contiguous elements of every tensor in order"

In every tensor of the written files, element i in row-major order of its shape is pattern(i): i - 3 for signed types, i for unsigned ones,
i % 3 == 0 for bool. The tests compute the same, so no expected values are stored.
"""
import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile
import zlib

import numpy
import torch

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "checkpoints")
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def pattern(*shape, dtype=torch.float32):
    count = int(numpy.prod(shape, dtype=numpy.int64))
    index = torch.arange(count)
    if dtype == torch.bool:
        values = index % 3 == 0
    elif dtype in (torch.uint8, torch.uint16):
        values = index
    else:
        values = index - 3
    return values.to(dtype).reshape(shape)


def path(name):
    return os.path.join(FOLDER, name)


def strided():
    """Logical content is the pattern whatever the memory layout is."""
    whole = torch.zeros(100)
    whole[10:34] = pattern(24)
    wide = torch.full((4, 10), 99.0)
    wide[:, 2:8] = pattern(4, 6)
    shared = torch.cat([pattern(5), pattern(7)])
    return collections.OrderedDict(
        channels_last=pattern(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        transposed=pattern(6, 4).t().contiguous().t(),
        slice=whole[10:34].reshape(2, 3, 4),
        columns=wide[:, 2:8],
        every_other=torch.stack([pattern(6), torch.zeros(6)], 1).flatten()[::2],
        shared_a=shared[:5],
        shared_b=shared[5:],
        expanded=torch.tensor(-3.0).expand(1, 1, 1),
        scalar=torch.tensor(-3.0),
        scalar_inside=torch.cat([torch.zeros(7), pattern(1)])[7],
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(pattern(3, 2)),
        rank8=pattern(1, 2, 1, 2, 1, 2, 1, 2).permute(7, 6, 5, 4, 3, 2, 1, 0).contiguous().permute(7, 6, 5, 4, 3, 2, 1, 0),
    )


def dtypes():
    return collections.OrderedDict((str(dtype).split(".")[1], pattern(2, 5, dtype=dtype)) for dtype in DTYPES)


def trainer():
    """The keys super-gradients' trainer writes."""
    net = collections.OrderedDict([("module.conv.weight", pattern(2, 3, 1, 1)), ("module.conv.bias", pattern(2)),
                                   ("module.bn.num_batches_tracked", torch.tensor(-3))])
    net._metadata = {"": {"version": 1}}
    ema = collections.OrderedDict((key[len("module."):], value) for key, value in net.items())
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "net": net, "ema_net": ema, "acc": numpy.float64(0.25), "epoch": 7, "big": 2 ** 40, "negative": -2 ** 40, "huge": 2 ** 80, "small": -5,
        "metrics": {"valid": {"mAP@0.50": 0.5, "loss": float("inf")}, "half": numpy.float32(0.5)}, "best": numpy.int64(-9), "flag": numpy.bool_(True),
        "unsigned": numpy.uint8(200), "float16": numpy.float16(-1.5), "none": None, "bytes": b"\x00\xff\x80z", "set": {4}, "size": torch.Size([3, 4]),
        "dtype": torch.float16, "optimizer_state_dict": optimizer.state_dict(),
        "processing_params": {
            "class_names": [numpy.str_("circle"), numpy.str_("caf\u00e9 \u2603 \U0001f6b2"), "plain \u00e9"], "conf": 0.5, "iou": 0.65,
            "image_processor": {"ComposeProcessing": {"processings": [
                "ReverseImageChannels", {"DetectionLongestMaxSizeRescale": {"output_shape": (640, 640)}},
                {"DetectionBottomRightPadding": {"output_shape": (640, 640), "pad_value": 114}}, {"ImagePermute": {"permutation": (2, 0, 1)}}]}}},
    }


def dump_zip(name, pickled, records, prefix="archive/", compression=zipfile.ZIP_STORED, order=None):
    """A container written by hand, for what torch.save refuses to write."""
    with zipfile.ZipFile(path(name), "w", compression) as archive:
        def add(entry, data):
            archive.writestr(zipfile.ZipInfo(prefix + entry, (2020, 1, 1, 0, 0, 0)), data, compression)
        add("data.pkl", pickled)
        if order:
            add("byteorder", order)
        for key, data in records:
            add(key, data)
        add("version", b"3\n")


def unicode_op(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def storage_op(kind, key, count):
    return b"(" + unicode_op("storage") + b"ctorch\n" + kind + b"\n" + unicode_op(key) + unicode_op("cpu") + b"J" + struct.pack("<i", count) + b"tQ"


def tensor_op(storage, offset=0, size=(4,), stride=(1,)):
    def numbers(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"J" + struct.pack("<i", offset) + numbers(size) + numbers(stride) + \
        b"\x89ccollections\nOrderedDict\n)RtR"


def state_dict_op(*pairs):
    return b"\x80\x02}(" + b"".join(unicode_op(name) + tensor for name, tensor in pairs) + b"u."


def hand_made():
    floats = pattern(4).numpy().astype("<f4").tobytes()
    good = tensor_op(storage_op(b"FloatStorage", "0", 4))
    dump_zip("big_endian.pth", state_dict_op(("w", good), ("l", tensor_op(storage_op(b"LongStorage", "1", 4)))),
             [("data/0", pattern(4).numpy().astype(">f4").tobytes()), ("data/1", (numpy.arange(4) - 3).astype(">i8").tobytes())], order=b"big")
    # Python would run this: os.system as the value of a key, and as the maker of a tensor.
    evil = b"cos\nsystem\n(" + unicode_op("touch OWNED") + b"tR"
    dump_zip("evil.pth", state_dict_op(("w", good), ("run", evil)), [("data/0", floats)])
    dump_zip("evil_root.pth", b"\x80\x02" + evil + b".", [])
    dump_zip("evil_tensor.pth", state_dict_op(("w", good), ("v", b"ctorch._utils\n_rebuild_tensor_v2\n(" + evil + b"tR")), [("data/0", floats)])
    # A list and a dict that contain themselves; a tuple inside a list that it contains.
    dump_zip("cycle.pth", b"\x80\x02}(" + unicode_op("list") + b"]q\x00h\x00a" + unicode_op("dict") + b"}q\x01" + unicode_op("self") + b"h\x01s" +
             unicode_op("tuple") + b"]q\x02h\x02\x85a" + unicode_op("w") + good + b"u.", [("data/0", floats)])
    # Twenty lists, each of which contains the one before ten times.
    laughs = b"".join(b"]q%c(" % (i + 1) + b"h%c" % i * 10 + b"eq%c0" % (i + 1) for i in range(20))
    dump_zip("laughs.pth", b"\x80\x02]q\x000" + laughs + b"h\x14.", [])
    dump_zip("deep.pth", b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", [])
    dump_zip("beyond.pth", state_dict_op(("w", tensor_op(storage_op(b"FloatStorage", "0", 4), 1))), [("data/0", floats)])
    dump_zip("stride_beyond.pth", state_dict_op(("w", tensor_op(storage_op(b"FloatStorage", "0", 4), 0, (2, 2), (3, 1)))), [("data/0", floats)])
    dump_zip("negative.pth", state_dict_op(("w", tensor_op(storage_op(b"FloatStorage", "0", 4), 0, (-4,)))), [("data/0", floats)])
    dump_zip("negative_stride.pth", state_dict_op(("w", tensor_op(storage_op(b"FloatStorage", "0", 4), 3, (4,), (-1,)))), [("data/0", floats)])
    dump_zip("negative_storage.pth", state_dict_op(("w", tensor_op(storage_op(b"FloatStorage", "0", -4)))), [("data/0", floats)])
    dump_zip("huge.pth", state_dict_op(("w", tensor_op(storage_op(b"FloatStorage", "0", 4), 0, (2 ** 31 - 1,) * 3, (0, 0, 0)))), [("data/0", floats)])
    dump_zip("overlapping.pth", state_dict_op(("w", tensor_op(storage_op(b"FloatStorage", "0", 4), 0, (2 ** 20, 20), (0, 0)))), [("data/0", floats)])
    dump_zip("many_overlapping.pth", state_dict_op(*[("w%d" % i, tensor_op(storage_op(b"FloatStorage", "0", 4), 0, (2 ** 20,), (0,)))
                                                      for i in range(20)]), [("data/0", floats)])
    dump_zip("lying_size.pth", state_dict_op(("w", tensor_op(storage_op(b"FloatStorage", "0", 5)))), [("data/0", floats)])
    dump_zip("missing.pth", state_dict_op(("w", good)), [("data/1", floats)])
    # Thirty directory entries for the bytes of one record.
    dump_zip("overlapping_records.pth", state_dict_op(*[("w%d" % i, tensor_op(storage_op(b"FloatStorage", "%02d" % i, 256), 0, (1,)))
                                                         for i in range(30)]), [("data/%02d" % i, bytes(1024 if i == 0 else 0)) for i in range(30)])
    data = bytearray(open(path("overlapping_records.pth"), "rb").read())
    position = data.find(b"PK\x01\x02")
    first = None
    while position >= 0:
        name = bytes(data[position + 46:position + 46 + struct.unpack_from("<H", data, position + 28)[0]])
        if name == b"archive/data/00":
            first = bytes(data[position + 16:position + 28]), bytes(data[position + 42:position + 46])  # CRC and sizes, place
        elif name.startswith(b"archive/data/"):
            data[position + 16:position + 28], data[position + 42:position + 46] = first
        position = data.find(b"PK\x01\x02", position + 1)
    open(path("overlapping_records.pth"), "wb").write(data)
    dump_zip("climbing.pth", state_dict_op(("w", good)), [("data/0", floats), ("../../evil", b"x")])
    dump_zip("compressed.pth", state_dict_op(("w", good)), [("data/0", bytes(100000))], compression=zipfile.ZIP_DEFLATED)
    dump_zip("twice_named.pth", state_dict_op(("w", good), ("w", good)), [("data/0", floats)])
    dump_zip("no_pickle.pth", b"", [], prefix="folder/")
    with zipfile.ZipFile(path("no_pickle.pth"), "w") as archive:
        archive.writestr(zipfile.ZipInfo("readme.txt"), "hello")
    with zipfile.ZipFile(path("torchscript.pth"), "w") as archive:
        archive.writestr(zipfile.ZipInfo("m/data.pkl"), "x")
        archive.writestr(zipfile.ZipInfo("m/constants.pkl"), "x")
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dump_zip("duplicate.pth", state_dict_op(("w", good)), [("data/0", floats), ("data/0", bytes(16))])
    dump_zip("bad_order.pth", state_dict_op(("w", good)), [("data/0", floats)], order=b"middle")
    # Flag bit 0 in both headers says: encrypted.
    dump_zip("encrypted.pth", state_dict_op(("w", good)), [("data/0", floats)])
    data = bytearray(open(path("encrypted.pth"), "rb").read())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = -1
        while (position := data.find(signature, position + 1)) >= 0:
            data[position + at] |= 1
    open(path("encrypted.pth"), "wb").write(data)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 1)


class Names(dict):
    pass


class Strings(list):
    pass


def main():
    torch.manual_seed(0)
    os.makedirs(FOLDER, exist_ok=True)
    here = types.ModuleType("network")  # classes that no reader has
    for kind in (Network, Names, Strings):
        kind.__module__ = "network"
        setattr(here, kind.__name__, kind)
    sys.modules["network"] = here
    for name, content in (("dtypes", dtypes), ("strided", strided), ("trainer", trainer)):
        torch.save(content(), path(name + ".pth"))
        torch.save(content(), path(name + "_legacy.pth"), _use_new_zipfile_serialization=False)
        torch.save(content(), path(name + "_protocol4.pth"), pickle_protocol=4)
        torch.save(content(), path(name + "_legacy_protocol4.pth"), _use_new_zipfile_serialization=False, pickle_protocol=4)
    torch.save(trainer(), path("trainer_protocol5.pth"), pickle_protocol=5)
    torch.save(dtypes(), path("dtypes_protocol1.pth"), pickle_protocol=1)
    torch.save(dtypes(), path("dtypes_legacy_protocol1.pth"), pickle_protocol=1, _use_new_zipfile_serialization=False)
    torch.save({"net": {"module.a": pattern(3), "module.b": pattern(2)}}, path("module_prefix.pth"))
    torch.save({"net": {"module.a": pattern(3), "b": pattern(2)}}, path("partial_prefix.pth"))
    torch.save({"state_dict": {"a": pattern(3), "_extra_state": None}, "net": None}, path("state_dict.pth"))
    stream = io.BytesIO()
    torch.save({"a": pattern(3)}, stream)  # folder "archive"
    open(path("stream.pth"), "wb").write(stream.getvalue())
    torch.save({"a": pattern(3), "c": torch.zeros(2, dtype=torch.complex64)}, path("complex.pth"))
    torch.save({"a": pattern(3, dtype=torch.uint16)}, path("uint16.pth"))
    torch.save({"a": torch.eye(3).to_sparse()}, path("sparse.pth"))
    torch.save(Network(), path("whole_module.pth"))
    torch.save({"names": Names(x=1), "strings": Strings(["y"]), "default": collections.defaultdict(list, z=[2])}, path("subclasses.pth"))
    torch.save([pattern(3)], path("list.pth"))
    torch.save({"epoch": 3, "model": {"deep": {"w": pattern(3)}}}, path("no_state_dict.pth"))
    with open(path("plain_pickle.pth"), "wb") as file:
        pickle.dump({"a": 1}, file, protocol=2)
    hand_made()


def contiguous_bytes(tensor):
    tensor = tensor.detach().contiguous()
    return bytes(tensor.reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else b""


def describe(file):
    root = torch.load(file, map_location="cpu", weights_only=False)
    key = next((key for key in ("ema_net", "net", "state_dict") if key in root), "")
    state = root[key] if key else root
    crc = 0
    names = list(state)
    if all(name.startswith("module.") for name in names):
        names = [name[7:] for name in names]
    for name, tensor in zip(names, state.values()):
        crc = zlib.crc32(contiguous_bytes(tensor), zlib.crc32(name.encode() + b"\0", crc))
    print('{"%s", "%s", %d, 0x%08x},' % (os.path.basename(file), key, len(names), crc))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for file in sys.argv[1:]:
            describe(file)
    else:
        main()
