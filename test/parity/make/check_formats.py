"""Reads with torch, safetensors, gguf and zipfile what test/soak/FormatsPeer.test.ts wrote, and says where they differ.

    python test/parity/make/check_formats.py FOLDER       (torch, safetensors, gguf, numpy)

`FOLDER/manifest.json` is a list of files: `{ "file", "format", "tensors": [{ "name", "type", "sizes", "hex" }],
"reals": { name: [numbers] } }`, hex being the bytes as they stand. Ends with an error at the first difference.
"""
import json
import os
import sys
import zipfile

import gguf
import numpy
import safetensors.torch
import torch

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
          "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}


def raw(tensor):
    flat = tensor.contiguous().reshape(-1)
    return b"" if flat.numel() == 0 else flat.view(torch.uint8).numpy().tobytes()


def check_torch(tensors, given):
    assert list(tensors) == [tensor["name"] for tensor in given] or sorted(tensors) == sorted(
        tensor["name"] for tensor in given), (list(tensors), given)
    for tensor in given:
        found = tensors[tensor["name"]]
        assert found.dtype == DTYPES[tensor["type"]] and list(found.shape) == tensor["sizes"], (tensor, found)
        assert raw(found).hex() == tensor["hex"], tensor


def check_gguf(path, given, reals):
    reader = gguf.GGUFReader(path)
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert sorted(found) == sorted(tensor["name"] for tensor in given), (sorted(found), given)
    for tensor in given:
        here = found[tensor["name"]]
        sizes = [int(size) for size in reversed(here.shape)]
        assert here.tensor_type.name == tensor["type"] and sizes == tensor["sizes"], (tensor, sizes)
        assert here.data.tobytes().hex() == tensor["hex"], tensor
        if tensor["name"] in reals:
            values = gguf.quants.dequantize(here.data, here.tensor_type).reshape(-1)
            assert (values == numpy.array(reals[tensor["name"]], dtype=numpy.float32)).all(), tensor
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    return fields


folder = sys.argv[1]
with open(os.path.join(folder, "manifest.json")) as file:
    manifest = json.load(file)
for item in manifest:
    path = os.path.join(folder, item["file"])
    if item["format"] == "torch":
        check_torch(torch.load(path, weights_only=True), item["tensors"])
        check_torch(torch.load(path, weights_only=True, mmap=True), item["tensors"])
        assert zipfile.ZipFile(path).testzip() is None
    elif item["format"] == "safetensors":
        check_torch(safetensors.torch.load_file(path), item["tensors"])
    else:
        fields = check_gguf(path, item["tensors"], item["reals"])
        assert fields == item["metadata"], (fields, item["metadata"])
print(f"{len(manifest)} files agree")
