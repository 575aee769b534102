"""Draws the synthetic test images of tests/data/images in every flavour of JPEG and PNG the reader claims to know, and writes expected.tsv:
what OpenCV makes of each. Run in the oracle environment (OpenCV 5.0.0, Pillow, libturbojpeg for YCCK):

    python tests/golden/make_images.py tests/data/images

expected.tsv: file, height, width, CRC-32 of imread (RGB order, HWC), CRC-32 of the 640x640 canvas before division (RGB, HWC).
"""
import ctypes, ctypes.util, io, os, struct, sys, zlib
import cv2, numpy as np
from PIL import Image

OUT = sys.argv[1]


def draw(width, height, seed=0):
    """Gradients, hard edges, diagonal stripes and a little noise: something for every part of a decoder to get wrong."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.stack([x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), 127 + 120 * np.sin((x + 2 * y) / 5)], -1)
    image[height // 4 : height // 2, width // 4 : width // 2] = (230, 20, 40)
    image[(x + y) % 17 < 3] = (10, 200, 90)
    image += np.random.default_rng(seed).normal(0, 6, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def save(name, data):
    with open(f"{OUT}/{name}", "wb") as f:
        f.write(data)


def jpeg(image, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, "JPEG", **{"quality": 85, **options})
    return buffer.getvalue()


def exif(orientation, order="<", first=b""):
    entries = ([first] if first else []) + [struct.pack(order + "HHIHH", 0x112, 3, 1, orientation, 0)]
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries)) + b"".join(entries) + b"\0\0\0\0"


def app1(payload):
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def insert(data, *segments):
    return data[:2] + b"".join(segments) + data[2:]


def ycck(image, name):
    """TurboJPEG stores CMYK input as YCCK."""
    lib = ctypes.CDLL(ctypes.util.find_library("turbojpeg") or "libturbojpeg.so.0")
    lib.tjInitCompress.restype = ctypes.c_void_p
    height, width = image.shape[:2]
    out, size = ctypes.c_void_p(), ctypes.c_ulong()
    pixels = np.ascontiguousarray(image)
    done = lib.tjCompress2(ctypes.c_void_p(lib.tjInitCompress()), pixels.ctypes.data_as(ctypes.c_void_p), width, 0, height, 11, ctypes.byref(out),
                           ctypes.byref(size), 0, 85, 0)
    assert done == 0
    save(name, ctypes.string_at(out, size.value))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, depth, color, interlaced=False, before=b"", after=b""):
    """samples [H, W, channels] of `depth` bits. Filter type cycles over the rows so that all five occur."""
    height, width, channels = samples.shape
    step = max(1, channels * depth // 8)

    def pack(row):
        if depth == 16:
            return row.astype(">u2").tobytes()
        if depth == 8:
            return row.astype(np.uint8).tobytes()
        bits = ((row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(-1)
        return np.packbits(bits).tobytes()

    def scan(part):
        if part.shape[0] == 0 or part.shape[1] == 0:
            return b""
        out, previous = b"", None
        for number, row in enumerate(part):
            raw = np.frombuffer(pack(row), np.uint8).astype(int)
            up = previous if previous is not None else np.zeros_like(raw)
            left, corner = np.zeros_like(raw), np.zeros_like(raw)
            left[step:], corner[step:] = raw[:-step], up[:-step]
            kind = number % 5
            p = left + up - corner
            pa, pb, pc = abs(p - left), abs(p - up), abs(p - corner)
            paeth = np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, up, corner))
            predicted = [0, left, up, (left + up) // 2, paeth][kind]
            out += bytes([kind]) + ((raw - predicted) % 256).astype(np.uint8).tobytes()
            previous = raw
        return out

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    data = b"".join(scan(samples[y::dy, x::dx]) for y, x, dy, dx in passes) if interlaced else scan(samples)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(data, 9)) + after + chunk(b"IEND", b"")


def make_jpegs():
    image = draw(61, 47)
    save("rgb_444.jpg", jpeg(image, subsampling="4:4:4"))
    save("rgb_422.jpg", jpeg(image, subsampling="4:2:2"))
    save("rgb_420.jpg", jpeg(image, subsampling="4:2:0"))
    for name in ("440", "411"):
        factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")
        save(f"rgb_{name}.jpg", cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1].tobytes())
    save("progressive_420.jpg", jpeg(image, progressive=True, subsampling="4:2:0"))
    save("progressive_444.jpg", jpeg(image, progressive=True, subsampling="4:4:4", quality=40))
    save("optimized_q5.jpg", jpeg(image, optimize=True, quality=5))
    save("q100.jpg", jpeg(image, quality=100))
    save("restart.jpg", jpeg(image, restart_marker_blocks=2))
    save("stored_rgb.jpg", jpeg(image, keep_rgb=True, subsampling="4:4:4"))
    save("grey.jpg", jpeg(Image.fromarray(image).convert("L")))
    save("grey_progressive.jpg", jpeg(Image.fromarray(image).convert("L"), progressive=True))
    ink = np.concatenate([255 - image, draw(61, 47, 3)[..., :1]], -1)
    save("cmyk.jpg", jpeg(Image.fromarray(ink, "CMYK")))
    save("cmyk_progressive.jpg", jpeg(Image.fromarray(ink, "CMYK"), progressive=True))
    ycck(ink, "ycck.jpg")
    for width, height in ((1, 1), (2, 1), (1, 40), (40, 1), (7, 5), (8, 8), (9, 17), (33, 15), (149, 20), (20, 303)):
        save(f"size_{width}x{height}.jpg", jpeg(draw(width, height)))
    small = jpeg(draw(40, 26), subsampling="4:2:0")
    for orientation in range(0, 10):
        save(f"exif_{orientation}.jpg", insert(small, app1(b"Exif\0\0" + exif(orientation, "<" if orientation % 2 else ">"))))
    xmp = app1(b"http://ns.adobe.com/xap/1.0/\0<x/>")
    save("exif_after_xmp.jpg", insert(small, xmp, app1(b"Exif\0\0" + exif(6))))
    save("exif_twice.jpg", insert(small, app1(b"Exif\0\0" + exif(8)), app1(b"Exif\0\0" + exif(6))))
    save("exif_good_text.jpg", insert(small, app1(b"Exif\0\0" + exif(6, ">", struct.pack(">HHII", 0x10E, 2, 30, 8)))))
    save("exif_bad_text.jpg", insert(small, app1(b"Exif\0\0" + exif(6, ">", struct.pack(">HHII", 0x10E, 2, 30, 0xFFFFFFF0)))))
    save("exif_cut.jpg", insert(small, app1(b"Exif\0\0" + exif(6)[:16])))
    save("exif_fill_bytes.jpg", insert(small, b"\xff\xff\xff" + app1(b"Exif\0\0" + exif(6))))
    save("no_end_marker.jpg", small[:-2])
    save("trailing_bytes.jpg", small + b"trailing")
    save("extraneous_bytes.jpg", small[:-2] + b"\0\1\2" + small[-2:])
    flat = np.zeros((954, 1272, 3), np.uint8)
    flat[:, :, 0], flat[200:501, 301:800] = 40, (250, 128, 3)
    save("exactly_twice.jpg", jpeg(flat, quality=50))


def make_pngs():
    image = draw(61, 47)
    alpha = draw(61, 47, 5)[..., :1]
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    wide = image.astype(int) * 257 ^ np.random.default_rng(1).integers(0, 256, image.shape)
    wide_alpha = alpha.astype(int) * 200
    wide_grey = grey.astype(int) * 250 + 77
    palette = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    opacity = bytes(range(200))
    cases = {
        "rgb8": (image, 8, 2), "rgba8": (np.concatenate([image, alpha], -1), 8, 6), "rgb16": (wide, 16, 2),
        "rgba16": (np.concatenate([wide, wide_alpha], -1), 16, 6), "grey8": (grey, 8, 0), "grey16": (wide_grey, 16, 0),
        "grey1": (grey >> 7, 1, 0), "grey2": (grey >> 6, 2, 0), "grey4": (grey >> 4, 4, 0),
        "grey_alpha8": (np.concatenate([grey, alpha], -1), 8, 4), "grey_alpha16": (np.concatenate([wide_grey, wide_alpha], -1), 16, 4),
    }
    for name, (samples, depth, color) in cases.items():
        for interlaced in (False, True):
            save(f"{name}{'_interlaced' if interlaced else ''}.png", png(samples, depth, color, interlaced))
    for depth in (1, 2, 4, 8):
        samples = grey >> (8 - depth)
        for suffix, extra in (("", b""), ("_trns", chunk(b"tRNS", opacity[: min(200, 1 << depth)]))):
            plte = chunk(b"PLTE", palette[: 1 << depth].tobytes()) + extra
            save(f"palette{depth}{suffix}.png", png(samples, depth, 3, before=plte))
    save("palette8_interlaced.png", png(grey, 8, 3, True, before=chunk(b"PLTE", palette.tobytes())))
    save("rgb8_trns.png", png(image, 8, 2, before=chunk(b"tRNS", struct.pack(">HHH", *map(int, image[20, 20])))))
    save("rgb16_trns.png", png(wide, 16, 2, before=chunk(b"tRNS", struct.pack(">HHH", *map(int, wide[20, 20])))))
    save("grey8_trns.png", png(grey, 8, 0, before=chunk(b"tRNS", struct.pack(">H", int(grey[20, 20, 0])))))
    save("grey2_trns.png", png(grey >> 6, 2, 0, before=chunk(b"tRNS", struct.pack(">H", 2))))
    save("rgb8_gamma.png", png(image, 8, 2, before=chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"sBIT", b"\5\6\5")))
    save("rgb8_exif6.png", png(image, 8, 2, before=chunk(b"eXIf", exif(6, ">"))))
    save("rgb8_exif_behind.png", png(image, 8, 2, after=chunk(b"eXIf", exif(5))))
    save("rgb8_bad_text_crc.png", png(image, 8, 2, before=chunk(b"tEXt", b"a\0b")[:-1] + b"Q"))
    for width, height in ((1, 1), (3, 1), (1, 9), (300, 2)):
        save(f"size_{width}x{height}.png", png(draw(width, height), 8, 2, True))


def canvas(image):
    """super-gradients' `coco2017_val_yolo_nas` before the division, from cv2's BGR image."""
    height, width = image.shape[:2]
    r = min(636 / height, 636 / width)
    w, h = int(width * r), int(height * r)
    if w < 1 or h < 1:
        return None
    resized = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)[..., ::-1]
    out = np.full((640, 640, 3), 114, np.uint8)
    top, left = (640 - h) // 2, (640 - w) // 2
    out[top : top + h, left : left + w] = resized
    return out


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    make_jpegs()
    make_pngs()
    with open(f"{OUT}/expected.tsv", "w") as table:
        table.write("# made by tests/golden/make_images.py with OpenCV " + cv2.__version__ + "\n")
        for name in sorted(n for n in os.listdir(OUT) if n.endswith((".jpg", ".png"))):
            image = cv2.imread(f"{OUT}/{name}")
            final = canvas(image)
            crc = lambda a: "%08x" % zlib.crc32(np.ascontiguousarray(a).tobytes())
            table.write(f"{name}\t{image.shape[0]}\t{image.shape[1]}\t{crc(image[..., ::-1])}\t{crc(final) if final is not None else '-'}\n")
