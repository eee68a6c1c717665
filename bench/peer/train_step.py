"""The peer of the training-step benchmark: the same 24 M-parameter Llama in PyTorch, compiled, on two threads.

It does not clip its gradients; ours does.

Each line on standard input asks for one step (forward, backward, AdamW); its milliseconds go to standard output. The
first lines say how it was set up and the rate of a 2048 x 2048 product. `rss` asks for the peak resident memory in MB.

    python train_step.py [eager|compile] [threads]
"""
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

mode = sys.argv[1] if len(sys.argv) > 1 else "compile"
torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 2)
torch.manual_seed(0)
embed, layers, heads, hidden, vocab, batch, length = 288, 6, 6, 768, 32000, 4, 256
size = embed // heads

frequency = 10000.0 ** (-torch.arange(0, size, 2).float() / size)
angle = torch.outer(torch.arange(length).float(), frequency)
cos, sin = angle.cos(), angle.sin()


def rotate(x):
    first, second = x[..., : size // 2], x[..., size // 2 :]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


class RmsNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(embed))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.gain


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm, self.feed_forward_norm = RmsNorm(), RmsNorm()
        self.query, self.key, self.value, self.output = (linear(embed, embed) for _ in range(4))
        self.gate, self.up, self.down = linear(embed, hidden), linear(embed, hidden), linear(hidden, embed)

    def split(self, x):
        return x.view(batch, length, heads, size).transpose(1, 2)

    def forward(self, x):
        h = self.attention_norm(x)
        query, key, value = rotate(self.split(self.query(h))), rotate(self.split(self.key(h))), self.split(self.value(h))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, length, embed))
        h = self.feed_forward_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(vocab, embed)
        self.blocks = nn.ModuleList(Block() for _ in range(layers))
        self.norm, self.head = RmsNorm(), linear(embed, vocab)

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


model = Llama()
forward = torch.compile(model) if mode == "compile" else model
fused = {"fused": True} if mode == "compile" else {}
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.1, **fused)
ids, targets = torch.randint(0, vocab, (batch, length)), torch.randint(0, vocab, (batch, length))


def step():
    started = time.perf_counter()
    loss = F.cross_entropy(forward(ids).view(-1, vocab), targets.view(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return (time.perf_counter() - started) * 1e3


for _ in range(3):
    step()
a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
a @ b
started = time.perf_counter()
for _ in range(8):
    a @ b
rate = 8 * 2 * 2048**3 / (time.perf_counter() - started) / 1e9
parameters = sum(parameter.numel() for parameter in model.parameters())
print(f"PyTorch {torch.__version__} {mode}, {torch.get_num_threads()} threads, {parameters} parameters, {rate:.0f} GF/s", flush=True)
for line in sys.stdin:
    if line.strip() == "rss":
        print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}", flush=True)
    else:
        print(f"{step():.2f}", flush=True)
