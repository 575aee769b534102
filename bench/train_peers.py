"""Time and memory of a training step of PyTorch (FP32) or of Quark's quantized graph: the peers of bench_train.

usage: train_peers.py CHECKPOINT fp32|qat ORACLE [--width W] [--classes N] [--variant s|m|l] [--batch B] [--threads T] [--steps K]
ORACLE: the folder of the scripts that build the originals (common.py). Images and targets are made, as in bench/train.c.
"""
import argparse, resource, sys, time
import torch

parser = argparse.ArgumentParser()
parser.add_argument("checkpoint"); parser.add_argument("kind", choices=["fp32", "qat"]); parser.add_argument("oracle")
parser.add_argument("--width", type=float, default=1.0); parser.add_argument("--classes", type=int, default=80)
parser.add_argument("--variant", default="s"); parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--threads", type=int, default=2); parser.add_argument("--steps", type=int, default=3)
args = parser.parse_args()
sys.path.insert(0, args.oracle)
from common import capture_with_scope, load, quantizer
from super_gradients.training.losses import PPYoloELoss

torch.set_num_threads(args.threads); torch.manual_seed(0)
torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 10000
x = torch.rand(args.batch, 3, 640, 640)
targets = torch.tensor([[b, i % args.classes, 60 + 60 * i, 300, 50 + 20 * i, 80] for b in range(args.batch) for i in range(8)], dtype=torch.float32)
model = load(args.checkpoint, args.width, args.classes, args.variant)
if args.kind == "qat":
    model = quantizer().quantize_model(capture_with_scope(model.eval(), x[:1]), [x[:1], x[1:2]])
model.train()
loss_of = PPYoloELoss(num_classes=args.classes, reg_max=16, use_static_assigner=False)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
seconds = []
for k in range(args.steps):
    begin = time.time()
    optimizer.zero_grad()
    loss, _ = loss_of(model(x), targets)
    loss.backward(); optimizer.step()
    seconds.append(time.time() - begin)
    print(f"step {k + 1}: {seconds[-1]:.2f} s, loss {float(loss):.4f}", flush=True)
name = "PyTorch" if args.kind == "fp32" else "Quark"
print(f"{name} {args.kind}: shortest {min(seconds):.2f} s, median {sorted(seconds)[len(seconds) // 2]:.2f} s, "
      f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
