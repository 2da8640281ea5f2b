"""ResNet-50 in plain torch, under torchvision's key names (He et al. 2016; the stride in the 3 x 3 convolution).

Written out because importing torchvision takes as long as importing torch: it brings torch's compiler along.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = (3, 4, 6, 3)
EXPANSION = 4


class _Bottleneck(nn.Module):
    def __init__(self, n_in: int, n: int, stride: int):
        super().__init__()
        n_out = EXPANSION * n
        self.conv1, self.bn1 = nn.Conv2d(n_in, n, 1, bias=False), nn.BatchNorm2d(n)
        self.conv2, self.bn2 = nn.Conv2d(n, n, 3, stride, padding=1, bias=False), nn.BatchNorm2d(n)
        self.conv3, self.bn3 = nn.Conv2d(n, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        self.downsample: nn.Module | None = None
        if stride > 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.bn1(self.conv1(x)))
        y = F.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu_(y.add_(x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """(n, 3, height, width) to (n, n_out)."""

    def __init__(self, n_out: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)
        n_in = 64
        for stage, depth in enumerate(DEPTHS):
            n = 64 * 2**stage
            blocks = [_Bottleneck(n_in, n, 1 if stage == 0 else 2)]
            n_in = EXPANSION * n
            blocks += [_Bottleneck(n_in, n, 1) for _ in range(depth - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu_(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        for stage in range(len(DEPTHS)):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
