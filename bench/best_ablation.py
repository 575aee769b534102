#!/usr/bin/env python3
"""What each step of the recipe best gives: alone, left out, and by the number of calibration images.

    bench/best_ablation.py steps  CHECKPOINT --data DIR -o OUT [--seeds 3] [-- options of binade quantize]
    bench/best_ablation.py images CHECKPOINT --data DIR -o OUT [--counts 8,16,32,100,300]

A seed is a shuffling of the calibration split (train2017): which images calibrate and which the guard measures on. Evaluated are the images of
val2017. Prints Markdown: the share of mAP@0.50:0.95 kept for each seed, their mean, the distance from the float network and the seconds of the steps.
"""
import argparse, json, os, pathlib, random, subprocess

BINADE = os.environ.get("BINADE", "build/release/binade")
ALWAYS = ["head", "fold"]
STEPS = ["equalize", "exponents", "bias-analytic", "bias", "search", "reconstruct"]
DEFAULT = ["equalize", "bias-analytic"]


def shuffled(data, seed, out):
    """A folder like DIR whose train2017 is listed in another order."""
    folder = out / f"data{seed}"
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for name in ["images", "annotations/instances_val2017.json"]:
        link = folder / name
        if not link.exists():
            link.symlink_to((data / name).resolve())
    train = json.loads((data / "annotations/instances_train2017.json").read_text())
    random.Random(seed).shuffle(train["images"])
    for number, image in enumerate(train["images"]):  # binade goes by id
        image["old"], image["id"] = image["id"], number + 1
    ids = {image.pop("old"): image["id"] for image in train["images"]}
    for box in train["annotations"]:
        box["image_id"] = ids[box["image_id"]]
    (folder / "annotations/instances_train2017.json").write_text(json.dumps(train))
    return folder


def run(checkpoint, data, out, steps, extra):
    command = [BINADE, "quantize", checkpoint, "--data", str(data), "-o", str(out), "-q"]
    for step in ALWAYS + steps:
        command += ["--step", step]
    subprocess.run(command + extra, check=True, stdout=subprocess.DEVNULL)
    results = json.loads((out / "results.json").read_text())
    stages = {stage["name"]: stage for stage in results["stages"]}
    kept = stages["aligned"]["map50_95"] / stages["fp32"]["map50_95"]
    done = results.get("steps", [])
    return kept, done[-1]["after"] if done else None, sum(step["seconds"] for step in done)


def print_head(seeds):
    print("| steps | " + " | ".join(f"seed {s}" for s in range(seeds)) + " | mean | distance | seconds |")
    print("|---" * (seeds + 4) + "|")


def print_row(name, measured):
    kept = [m[0] for m in measured]
    distance = [m[1] for m in measured if m[1] is not None]
    print(f"| {name} | " + " | ".join(f"{100 * k:.1f}" for k in kept) + f" | {100 * sum(kept) / len(kept):.1f} | "
          + (f"{sum(distance) / len(distance):.4f}" if distance else "") + f" | {sum(m[2] for m in measured) / len(measured):.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "images"])
    parser.add_argument("checkpoint")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--counts", default="8,16,32,100,300")
    parser.add_argument("--leave-out", default="", help="steps not to try, comma-separated: search and reconstruct take minutes each")
    arguments, extra = parser.parse_known_args()
    extra = [option for option in extra if option != "--"]
    folders = [shuffled(arguments.data, seed, arguments.output) for seed in range(arguments.seeds)]
    if arguments.what == "images":
        variants = [(count, DEFAULT, ["--calib", count]) for count in arguments.counts.split(",")]
    else:
        tried = [step for step in STEPS if step not in arguments.leave_out.split(",")]
        variants = [("none", [], []), ("default: " + ", ".join(DEFAULT), DEFAULT, [])]
        variants += [(step + " alone", [step], []) for step in tried]
        variants += [("default without " + step, [s for s in DEFAULT if s != step], []) for step in DEFAULT if len(DEFAULT) > 2]
        variants += [("default and " + step, [s for s in STEPS if s in DEFAULT or s == step], []) for step in tried if step not in DEFAULT]
    print_head(arguments.seeds)
    for name, steps, options in variants:
        to = arguments.output / str(name).replace(" ", "_").replace(":", "")
        print_row(name, [run(arguments.checkpoint, folder, pathlib.Path(f"{to}-{seed}"), steps, options + extra) for seed, folder in enumerate(folders)])


if __name__ == "__main__":
    main()
