"""The networks of conformance.py: each has the shape of a case in Quark's own test of power-of-two deployment
(test_fx_quant_align_hw_pow_of_2.py): which operators, in which order, at which sizes. Their order decides their random values: append only."""
import torch, torch.nn as nn, torch.nn.functional as F

CASES = {}


def case(inputs, observer="MinMax", rules=()):
    """Registers a network under its class name. inputs: shapes. rules: (name, {quantizer: position})."""
    def register(cls):
        CASES[cls.__name__] = (cls, inputs, observer, rules)
        return cls
    return register


class Network(nn.Module):
    """A module made of keyword layers, so that a case reads as its forward."""
    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


# ---- rewrites of convolutions and batch norm ----

@case([(1, 3, 16, 16)])
class batch_norm_to_convolution(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 16, 3, padding=1), relu=nn.ReLU(inplace=True), norm=nn.BatchNorm2d(16))

    def forward(self, x):
        return self.norm(self.relu(self.conv(x)))


class SharedModules(Network):
    def __init__(self):
        conv = lambda: nn.Conv2d(32, 32, 3)
        super().__init__(conv2d=nn.Conv2d(3, 32, 3, padding=1), bn=nn.BatchNorm2d(32), relu=nn.ReLU(inplace=True),
                         conv2d_1=conv(), bn_1=nn.BatchNorm2d(32), conv2d_2=conv(),
                         up=nn.ConvTranspose2d(32, 32, 3), up_1=nn.ConvTranspose2d(32, 32, 3), bn_2=nn.BatchNorm2d(32),
                         linear_1=nn.Linear(32, 32), linear=nn.Linear(32, 10))

    def forward(self, x):
        x = self.relu(self.bn(self.conv2d(x)))
        for _ in range(2):
            x = self.relu(self.bn_1(self.conv2d_1(x)))
        for _ in range(3):
            x = self.conv2d_2(x)
        for _ in range(3):
            x = self.up(x)
        for _ in range(3):
            x = self.bn_2(self.up_1(x))
        x = torch.flatten(x[:, :, 0, 0], 1)
        for _ in range(4):
            x = self.linear_1(x)
        return self.linear(x)


@case([(1, 3, 15, 15)])
class shared_modules(SharedModules):
    pass


@case([(1, 3, 15, 15)], observer="MinMSE")
class shared_modules_mse(SharedModules):
    pass


class TwoCalls(Network):
    """The same layers on two inputs."""
    def layers(self, x):
        raise NotImplementedError

    def forward(self, x1, x2):
        return self.layers(x1), self.layers(x2)


@case([(1, 3, 12, 12)] * 2)
class shared_convolution_bn(TwoCalls):
    def __init__(self):
        super().__init__(conv2d=nn.Conv2d(3, 32, 3, padding=1), bn=nn.BatchNorm2d(32), relu=nn.ReLU(inplace=True))

    def layers(self, x):
        return self.relu(self.bn(self.conv2d(x)))


@case([(1, 3, 12, 12)] * 2)
class shared_convolution(TwoCalls):
    def __init__(self):
        super().__init__(conv2d=nn.Conv2d(3, 32, 3, padding=1), relu=nn.ReLU(inplace=True))

    def layers(self, x):
        return self.relu(self.conv2d(x))


@case([(1, 3, 12, 12)] * 2)
class shared_transposed(TwoCalls):
    def __init__(self):
        super().__init__(up=nn.ConvTranspose2d(3, 32, 3, padding=1), relu=nn.ReLU(inplace=True))

    def layers(self, x):
        return self.relu(self.up(x))


@case([(1, 3, 12, 12)] * 2)
class shared_transposed_bn(TwoCalls):
    def __init__(self):
        super().__init__(up=nn.ConvTranspose2d(3, 32, 3, padding=1), bn=nn.BatchNorm2d(32), relu=nn.ReLU(inplace=True))

    def layers(self, x):
        return self.relu(self.bn(self.up(x)))


@case([(1, 3, 12, 12)] * 2)
class shared_linear(TwoCalls):
    def __init__(self):
        super().__init__(pool=nn.AdaptiveAvgPool2d((1, 1)), linear=nn.Linear(3, 10), relu=nn.ReLU(inplace=True))

    def layers(self, x):
        return self.relu(self.linear(torch.flatten(self.pool(x), 1)))


@case([(1, 3, 28, 28)])
class batch_norm_behind_concat(Network):
    def __init__(self):
        up = lambda bias=True: nn.ConvTranspose2d(16, 16, 3, stride=2, bias=bias)
        super().__init__(conv=nn.Conv2d(3, 48, 3), up1=up(False), up2=up(), up3=up(), bn1=nn.BatchNorm2d(48),
                         conv1=nn.Conv2d(24, 24, 3), conv2=nn.Conv2d(24, 24, 3), bn2=nn.BatchNorm2d(48))

    def forward(self, x):
        x = self.conv(x)
        for _ in range(2):
            a, b, c = torch.split(x, [16, 16, 16], 1)
            x = self.bn1(torch.concatenate([self.up1(a), self.up2(b), self.up3(c)], dim=1))
        for _ in range(2):
            a, b = torch.split(x, 24, 1)
            x = self.bn2(torch.concat([self.conv1(a), self.conv2(b)], dim=1))
        return x


@case([(1, 16, 12, 12)])
class batch_norm_behind_concat_grouped(Network):
    def __init__(self):
        up = lambda channels, groups=1: nn.ConvTranspose2d(channels, channels, 3, groups=groups)
        super().__init__(up1=up(16, 2), up2=up(16), up3=up(16), bn1=nn.BatchNorm2d(48), relu_1=nn.ReLU(), relu_2=nn.ReLU6(),
                         bn2=nn.BatchNorm2d(96), up4=up(96), up5=up(96), bn3=nn.BatchNorm2d(192), relu_3=nn.ReLU())

    def forward(self, x):
        x = self.bn1(torch.concatenate([self.up1(x), self.up2(x), self.up3(x)], dim=1))
        x = self.bn2(torch.concatenate([self.relu_1(x), self.relu_2(x)], dim=1))
        a, b = self.up4(x), self.up5(x)
        x = self.bn3(torch.concatenate([a, b], dim=1))
        return torch.cat([x, self.relu_3(a)], dim=1)


# ---- pools, splits, slices ----

@case([(1, 3, 6 + 2 * i, 6 + 2 * i) for i in range(9)])
class means_and_pools(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 3), pool1=nn.AdaptiveAvgPool2d(1), pool2=nn.AdaptiveAvgPool2d((2, 2)), pool3=nn.AvgPool2d(3, stride=2))

    def forward(self, x0, x1, x2, x3, x4, x5, x6, x7, x8):
        return (torch.mean(x0, dim=(2)), torch.mean(x1, dim=(2), keepdim=True), torch.mean(x2, dim=(2, 3), keepdim=True), self.pool1(x3),
                F.adaptive_avg_pool2d(x4, (1, 1)), self.pool2(x5), self.pool3(x6), self.conv(x7), torch.mean(x8, dim=(3, -2), keepdim=True))


@case([(1, 16, 28, 28)])
class split_to_slices(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(16, 32, 3, padding=1))

    def forward(self, x):
        a, b = self.conv(x), self.conv(x)
        parts = torch.split(a, [8, 16, 4, 4], 1), torch.split(b, 9, dim=1)
        first = [torch.cat(p, dim=1) for p in parts]
        parts = torch.split(a, [7, 7, 6, 8], -1), torch.split(b, 7, dim=-1)
        return (*first, *[torch.cat(p, dim=-1) for p in parts])


@case([(1, 3, 64, 100)])
class large_global_pool(Network):
    def __init__(self):
        super().__init__(conv1=nn.Conv2d(3, 16, 1), conv2=nn.Conv2d(3, 16, 3), pool=nn.AdaptiveAvgPool2d((1, 1)))

    def forward(self, x):
        a, b = self.conv1(x), self.conv2(x)
        return torch.cat([self.pool(a), self.pool(b)], dim=1)


@case([(8, 16), (8, 3, 10, 10)])
class idle_slices(Network):
    """The original's third branch is a three-dimensional convolution, which no YOLO-NAS has."""
    def __init__(self):
        super().__init__(linear=nn.Linear(16, 48), conv=nn.Conv2d(3, 16, 3))

    def forward(self, x0, x1):
        a, b = self.linear(x0), self.conv(x1)
        return a[:, 10:45], b[:, :, 6:8, 6:8]


@case([(1, 3, s, s) for s in (3, 5, 6, 7, 14, 15)])
class six_global_pools(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 16, 1), pool=nn.AdaptiveAvgPool2d((1, 1)))

    def forward(self, x1, x2, x3, x4, x5, x6):
        return tuple(self.pool(self.conv(x)) for x in (x1, x2, x3, x4, x5, x6))


@case([(1, 3, 28, 28)])
class six_average_pools(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1), pool1=nn.AvgPool2d(3, stride=2), pool2=nn.AvgPool2d(5, stride=2),
                         pool3=nn.AvgPool2d((3, 6), stride=(3, 5), ceil_mode=True), pool4=nn.AvgPool2d(7), pool5=nn.AvgPool2d(14), pool6=nn.AvgPool2d(15))

    def forward(self, x):
        x = self.conv(x)
        return tuple(pool(x) for pool in (self.pool1, self.pool2, self.pool3, self.pool4, self.pool5, self.pool6))


@case([(1, 3, 28, 28)], rules=[("align_pool", {"fake_quantizer_1": 4, "fake_quantizer_2": 3})])
class pools_in_a_row(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 16, 1), pool=nn.AvgPool2d(3), relu=nn.ReLU(), adaptive_pool=nn.AdaptiveAvgPool2d((1, 1)))

    def forward(self, x):
        return self.adaptive_pool(self.relu(self.pool(self.conv(x))))


# ---- activations, norms, dropout ----

@case([(1, 3, 16, 16)])
class clip_to_relu(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 3, padding=1), relu=nn.ReLU(inplace=True))

    def forward(self, x):
        x = torch.clip_(torch.clip(self.relu(self.conv(x)), 0, 1), -1, 1)
        return torch.clamp_(torch.clamp(x, -0.5, 1), -0.2, 1)


@case([(4, 32)])
class layer_norm(Network):
    def __init__(self):
        super().__init__(linear=nn.Linear(32, 64), norm=nn.LayerNorm(64), linear1=nn.Linear(64, 64))

    def forward(self, x):
        return self.linear1(self.norm(self.linear(x)))


@case([(1, 3, 28, 28)])
class gelu(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 3), act=nn.GELU())

    def forward(self, x):
        return self.act(self.conv(x))


@case([(8, 16)])
class sigmoid_to_hard_sigmoid(Network):
    def __init__(self):
        super().__init__(linear=nn.Linear(16, 48), sigmoid=nn.Sigmoid(), hardsigmoid=nn.Hardsigmoid())

    def forward(self, x):
        return self.hardsigmoid(self.sigmoid(self.linear(x)))


@case([(8, 16)])
class silu_and_hard_swish(Network):
    def __init__(self):
        super().__init__(linear=nn.Linear(16, 48), silu=nn.SiLU(), hardswish=nn.Hardswish())

    def forward(self, x):
        return self.hardswish(self.silu(self.linear(x)))


@case([(1, 3, 28, 28)])
class relu_silu(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1), relu=nn.ReLU(), silu=nn.SiLU())

    def forward(self, x):
        return self.silu(self.relu(self.conv(x)))


@case([(1, 3, 28, 28)])
class leaky_relu(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1), act=nn.LeakyReLU())

    def forward(self, x):
        return self.act(self.conv(x))


@case([(1, 3, 28, 28)])
class dropout(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 32, 3, padding=1), bn=nn.BatchNorm2d(32), pool=nn.AdaptiveAvgPool2d((1, 1)), dropout=nn.Dropout(),
                         linear=nn.Linear(32, 10))

    def forward(self, x):
        return self.linear(torch.flatten(self.dropout(self.pool(self.bn(self.conv(x)))), 1))


# ---- hardware rules ----

@case([(1, 3, 28, 28)], rules=[("align_concat", {"fake_quantizer_0": 7, "fake_quantizer_2": 0, "fake_quantizer_3": 7})])
class concat_scales(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(6, 16, 1))

    def forward(self, x):
        return self.conv(torch.concat([x * 100, x], dim=1))


@case([(1, 3, 28, 28)], rules=[("hard_sigmoid", {"fake_quantizer_1": 16, "fake_quantizer_2": 6})])
class relu_sigmoid(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1), relu=nn.ReLU(), sigmoid=nn.Sigmoid())

    def forward(self, x):
        return self.sigmoid(self.relu(self.conv(x)))


@case([(1, 3, 28, 28)], rules=[("shift_read", {"fake_quantizer_2": 1, "fake_quantizer_3": 10})])
class add_of_two(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1), relu=nn.ReLU(), relu6=nn.ReLU6())

    def forward(self, x):
        x = self.conv(x)
        return self.relu(x) + self.relu6(x)


@case([(1, 3, 28, 28)], rules=[("shift_write", {"fake_quantizer_1": 4, "fake_quantizer_2": 4, "fake_quantizer_3": 12}),
                               ("shift_write", {"fake_quantizer_4": 4, "fake_quantizer_5": 4, "fake_quantizer_6": 9})])
class add_and_mul(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1), relu=nn.ReLU(), pool=nn.AvgPool2d(3, 3))

    def forward(self, x):
        return self.pool(self.relu(self.conv(x)) + 100) * 10


class BufferWeight(Network):
    """A convolution whose weight is a constant, like the projection of a distribution to its mean."""
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1), relu=nn.ReLU(), conv1=nn.Conv2d(8, 8, 1), pool=nn.AvgPool2d(3, 3))
        self.register_buffer("proj_conv", torch.linspace(0, 7, 8).reshape([1, 8, 1, 1]), persistent=False)
        self.bias = None

    def forward(self, x):
        return F.conv2d(self.pool(self.conv1(self.relu(self.conv(x)))), weight=self.proj_conv, bias=self.bias)


@case([(1, 3, 28, 28)], rules=[("shift_cut", {"fake_quantizer_3": 4, "fake_quantizer_4": 4, "fake_quantizer_5": 9})])
class buffer_weight(BufferWeight):
    pass


@case([(1, 3, 28, 28)], rules=[("shift_bias", {"fake_quantizer_3": 8, "fake_quantizer_4": 8, "fake_quantizer_5": 18, "fake_quantizer_6": 1})])
class buffer_weight_and_bias(BufferWeight):
    def __init__(self):
        super().__init__()
        del self.bias
        self.register_buffer("bias", torch.tensor([1.0]), persistent=False)


@case([(1, 3, 28, 28)], rules=[("hard_sigmoid", {"fake_quantizer_2": 16, "fake_quantizer_3": 6})])
class pool_sigmoid(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1), pool=nn.AvgPool2d(3, 3), sigmoid=nn.Sigmoid())

    def forward(self, x):
        return self.sigmoid(self.pool(self.conv(x)))


@case([(1, 3, 28, 28)], rules=[("shift_swish", {"fake_quantizer_1": 4, "fake_quantizer_2": 4, "fake_quantizer_3": 9})])
class swish_and_almost(Network):
    """x * sigmoid(x), then twice with a relu in the way: only the first is a swish."""
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1), sigmoid=nn.Sigmoid(), pool=nn.AvgPool2d(3, 3))

    def forward(self, x):
        x = self.conv(x)
        x = self.pool(self.sigmoid(x) * x)
        gate = self.sigmoid(x)
        x = self.pool(gate * F.relu(x))
        return x * F.relu(self.sigmoid(x))


@case([(1, 3, 28, 28)])
class convolution(Network):
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1))

    def forward(self, x):
        return self.conv(x)


@case([(1, 3, 28, 28)])
class add_and_mul_of_floats(Network):
    """add_and_mul with float scalars: integer ones stay int64 tensors in the original, whose fake quantizer then truncates 7.9375 to 7 and whose
    exported file has a QuantizeLinear of int64, which no runtime loads."""
    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 1), relu=nn.ReLU(), pool=nn.AvgPool2d(3, 3))

    def forward(self, x):
        return self.pool(self.relu(self.conv(x)) + 100.0) * 10.0
