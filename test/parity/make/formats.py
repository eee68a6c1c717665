"""Makes test/parity/formats/*: small files that torch, the gguf package, transformers and llama2.c's export.py write.

    python test/parity/make/formats.py FOLDER-OF-LLAMA2.C      (torch, numpy, safetensors, gguf, transformers)

`expected.safetensors` holds what the tensors of the others are as float32; its metadata hold the versions. The weights
are (position · 0.37) mod 2 − 1 rounded to the type, so that they can be told without a generator of random numbers.
"""
import os
import sys
import types

import gguf
import numpy
import safetensors
import safetensors.torch
import torch
import transformers

LLAMA2C = sys.argv[1]
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "formats")
os.makedirs(FOLDER, exist_ok=True)
os.chdir(FOLDER)
expected = {}


def weights(*sizes):
    count = 1
    for size in sizes:
        count *= size
    return (torch.arange(count, dtype=torch.float64) * 0.37 % 2 - 1).float().reshape(sizes)


# torch.save: all types, a shared storage, nesting, an attribute on an OrderedDict, protocol 4
tensors = {str(dtype).split(".")[1]: (weights(2, 3) * 7).to(dtype) for dtype in [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool]}
whole = weights(4, 3)
torch.save({"types": tensors, "whole": whole, "rows": whole[1:3], "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4),
            "one": weights(3, 1).t(), "list": [torch.ones(1), {"step": 7}], "text": "é", "none": None, "yes": True,
            "number": 2.5, "large": 2**60, "negative": -3, "numbers": [1, 2, 3], "pair": (1, "x")}, "torch.pth")
linear = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
with torch.no_grad():
    linear.weight.copy_(weights(2, 3))
    linear.bias.copy_(weights(2))
torch.save(linear.state_dict(), "state.pth", pickle_protocol=4)
torch.save({"ok": whole, "turned": whole.t(), "wide": whole[:, :2], "spread": torch.ones(1).expand(5)}, "strided.pth")
torch.save(linear, "module.pth")  # asks for classes to be imported
expected.update({"torch.whole": whole, "torch.rows": whole[1:3].clone(), "torch.float16": tensors["float16"].float(),
                 "torch.bfloat16": tensors["bfloat16"].float(), "state.weight": weights(2, 3).bfloat16().float()})

# gguf: all types of metadata, plain and quantized tensors
writer = gguf.GGUFWriter("package.gguf", "llama")
writer.add_uint8("test.u8", 200)
writer.add_int8("test.i8", -100)
writer.add_uint16("test.u16", 60000)
writer.add_int16("test.i16", -30000)
writer.add_uint32("test.u32", 4000000000)
writer.add_int32("test.i32", -2000000000)
writer.add_float32("test.f32", 1.5)
writer.add_uint64("test.u64", 2**63 + 1)
writer.add_int64("test.i64", -2**63)
writer.add_float64("test.f64", 0.1)
writer.add_bool("test.bool", True)
writer.add_string("test.string", "é 🦙")
writer.add_array("tokenizer.ggml.tokens", ["<unk>", "<s>", "▁a", ""])
writer.add_array("tokenizer.ggml.scores", [0.0, -1.5, -2.5, 3.0])
writer.add_array("test.integers", [1, -2, 3])
writer.add_array("test.bools", [True, False])
for kind in [gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16,
             gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0]:
    values = (weights(3, 64) * 3).numpy()
    stored = gguf.quants.quantize(values, kind)
    writer.add_tensor(f"{kind.name.lower()}.weight", stored, raw_dtype=kind)
    expected[f"gguf.{kind.name.lower()}.weight"] = torch.from_numpy(gguf.quants.dequantize(stored, kind).copy())
writer.add_tensor("whole", numpy.arange(5, dtype=numpy.int32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

# halves between two codes, zeros, a very small group: how each rule rounds
hard = torch.cat([torch.arange(32) - 15.5, torch.zeros(32), torch.full((32,), 1e-8), weights(32) * 100, weights(128)])
hard[0] = 127.0
expected["hard"] = hard
expected["hard.q8"] = torch.from_numpy(gguf.quants.quantize(hard.numpy().reshape(1, -1), gguf.GGMLQuantizationType.Q8_0).copy())

# llama2.c: one model, tied and untied
sys.path.insert(0, LLAMA2C)
sys.modules.setdefault("gzip", types.ModuleType("gzip"))
import export  # noqa: E402
from model import ModelArgs, Transformer  # noqa: E402

for tied in [True, False]:
    model = Transformer(ModelArgs(dim=8, n_layers=2, n_heads=2, n_kv_heads=1, vocab_size=6, hidden_dim=12, max_seq_len=5))
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(weights(*parameter.shape) + index / 64)
        if not tied:
            model.output.weight = torch.nn.Parameter(weights(6, 8) * 2)
    name = "tied" if tied else "untied"
    for key, value in model.state_dict().items():
        if not (tied and key == "output.weight"):
            expected[f"{name}.{key}"] = value.clone()
    export.version1_export(model, f"{name}-v1.bin")
    export.version2_export(model, f"{name}-v2.bin", group_size=4)
    if tied:
        q, s, _ = export.quantize_q80(hard[:32], 4)
        expected["hard.codes"], expected["hard.scales"] = q.reshape(-1), s
    export.legacy_export(model, f"{name}-v0.bin")  # last: it turns the vocabulary of an untied model negative

# Hugging Face: shards with their index
config = transformers.LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16)
model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.copy_(weights(*parameter.shape))
model.save_pretrained("sharded", max_shard_size="1KB")
for file in ["config.json", "generation_config.json"]:
    os.remove(os.path.join("sharded", file))
expected["sharded.model.layers.1.mlp.up_proj.weight"] = model.model.layers[1].mlp.up_proj.weight.detach().float()

safetensors.torch.save_file({key: value.contiguous() for key, value in expected.items()}, "expected.safetensors", {
    "made by": "test/parity/make/formats.py", "torch": torch.__version__, "gguf": gguf.__dict__.get("__version__", "0.19.0"),
    "transformers": transformers.__version__, "safetensors": safetensors.__version__,
    "llama2.c": "350e04fe35433e6d2941dce5a1f53308f87058eb"})
