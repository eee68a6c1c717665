"""Loads what `cria export` wrote of stories260K with the programs that it was written for, and compares.

    python test/parity/make/verify_checkpoint.py stories260K.bin FOLDER      (torch, transformers, gguf, onnxruntime)

FOLDER holds hf-T and meta-T of T = f32, f16, bf16, T.gguf of T = f32, f16, q8, and onnx for 200 tokens. Scores are
compared with those of a forward pass of numpy over the weights of llama2.c; nothing is written. Results:
docs/guide/checkpoints.md.
"""
import json
import struct
import sys

import gguf
import numpy
import torch
import transformers

source, folder = sys.argv[1:]
data = open(source, "rb").read()
dim, hidden, layers, heads, kv_heads, vocab, length = struct.unpack("7i", data[:28])
size = dim // heads
offset = 28


def take(*shape):
    global offset
    count = int(numpy.prod(shape))
    offset += 4 * count
    return numpy.frombuffer(data, "<f4", count, offset - 4 * count).reshape(shape).astype(numpy.float64)


embedding, norm1 = take(vocab, dim), take(layers, dim)
wq, wk, wv = take(layers, dim, dim), take(layers, kv_heads * size, dim), take(layers, kv_heads * size, dim)
wo, norm2 = take(layers, dim, dim), take(layers, dim)
w1, w2, w3, norm = take(layers, hidden, dim), take(layers, dim, hidden), take(layers, hidden, dim), take(dim)


def rms(x, gain):
    return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain


def rotate(x):  # [position, head, size], pairs side by side
    angle = numpy.outer(numpy.arange(len(x)), 10000.0 ** (-numpy.arange(0, size, 2) / size))[:, None]
    even, odd = x[..., ::2], x[..., 1::2]
    turned = numpy.stack([even * numpy.cos(angle) - odd * numpy.sin(angle),
                          odd * numpy.cos(angle) + even * numpy.sin(angle)], -1)
    return turned.reshape(x.shape)


def forward(ids):
    x = embedding[ids]
    for i in range(layers):
        h = rms(x, norm1[i])
        q = rotate((h @ wq[i].T).reshape(len(ids), heads, size))
        k = rotate((h @ wk[i].T).reshape(len(ids), kv_heads, size)).repeat(heads // kv_heads, 1)
        v = (h @ wv[i].T).reshape(len(ids), kv_heads, size).repeat(heads // kv_heads, 1)
        scores = numpy.einsum("phd,shd->hps", q, k) / numpy.sqrt(size)
        scores[:, numpy.triu(numpy.ones((len(ids), len(ids)), bool), 1)] = -numpy.inf
        weights = numpy.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + numpy.einsum("hps,shd->phd", weights, v).reshape(len(ids), dim) @ wo[i].T
        h = rms(x, norm2[i])
        gate = h @ w1[i].T
        x = x + (gate / (1 + numpy.exp(-gate)) * (h @ w3[i].T)) @ w2[i].T
    return rms(x, norm) @ embedding.T


ids = [1]
while len(ids) < 200:
    ids.append(int(forward(ids)[-1].argmax()))
expected = forward(ids)

for kind in ("f32", "f16", "bf16"):
    path = f"{folder}/hf-{kind}"
    model, info = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double().numpy()
    out = model.generate(torch.tensor([[1]]), max_length=200, do_sample=False, eos_token_id=None)[0].tolist()
    same = next((i for i, (a, b) in enumerate(zip(out, ids)) if a != b), len(ids))
    print(f"transformers {transformers.__version__}, {kind}: largest difference of scores "
          f"{abs(logits - expected).max():.2e}; the first {same} of 200 greedy ids are the same")
    if kind == "f32":
        assert abs(logits - expected).max() < 1e-4 and same == 200
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    text = tokenizer.decode(ids, skip_special_tokens=True)
    again = tokenizer("Once upon a time, there was a little girl named Lily.").input_ids
    print(f"  {type(tokenizer).__name__}: {again[:8]} …; {text[:60]!r}")
    assert again[0] == 1 and again[1:5] == ids[1:5], again

for kind in ("f32", "f16", "bf16"):
    loaded = torch.load(f"{folder}/meta-{kind}/consolidated.00.pth", weights_only=True)
    params = json.load(open(f"{folder}/meta-{kind}/params.json"))
    largest = max(abs(loaded[f"layers.{i}.attention.wq.weight"].double().numpy() - wq[i]).max() for i in range(layers))
    print(f"torch.load, meta {kind}: {len(loaded)} tensors, {params}; largest difference of wq {largest:.1e}")
    assert kind != "f32" or largest == 0

for kind in ("f32", "f16", "q8"):
    reader = gguf.GGUFReader(f"{folder}/{kind}.gguf")
    tensors = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    largest = max(abs(tensors[f"blk.{i}.attn_q.weight"] - wq[i]).max() for i in range(layers))
    field = reader.fields["tokenizer.ggml.tokens"]
    pieces = [bytes(field.parts[i]).decode() for i in field.data]
    print(f"gguf, {kind}: {len(tensors)} tensors, {len(reader.fields)} fields, {len(pieces)} pieces "
          f"({pieces[403]!r}); largest difference of attn_q {largest:.1e}")
    assert len(pieces) == vocab and (kind != "f32" or largest == 0)

import onnxruntime  # noqa: E402  (the last check, for those who have it)

session = onnxruntime.InferenceSession(f"{folder}/onnx/model.onnx", providers=["CPUExecutionProvider"])
(logits,) = session.run(["logits"], {"ids": numpy.array([ids], numpy.int32)})
print(f"onnxruntime {onnxruntime.__version__}: largest difference of scores {abs(logits[0] - expected).max():.2e}")
assert abs(logits[0] - expected).max() < 1e-4
