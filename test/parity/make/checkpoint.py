"""Makes test/parity/checkpoint/*: tiny random Llamas as Hugging Face saves them, and their scores.

    python test/parity/make/checkpoint.py        (torch, transformers and safetensors; versions are kept in the files)

Each folder is what `save_pretrained` writes, in one file or in shards, with `expected.safetensors` beside it: ids, and
the scores that the saved weights give when transformers computes in float32.
"""
import os
import shutil

import safetensors.torch
import torch
import transformers

FOLDER = os.path.join(os.path.dirname(__file__), "..", "checkpoint")

KINDS = {
    # name: key and value heads, stored as, tied, bytes of a shard, theta, head size
    "mha-f32": (4, torch.float32, False, "1MB", 10000.0, 4),
    "mqa-f16": (1, torch.float16, False, "1MB", 500.0, 4),
    "gqa-bf16-sharded": (2, torch.bfloat16, False, "4KB", 10000.0, 8),
    "gqa-f32-tied": (2, torch.float32, True, "1MB", 10000.0, 4),
}

for seed, (name, (kv_heads, dtype, tied, shard, theta, head_dim)) in enumerate(KINDS.items()):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=19, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, head_dim=head_dim, rms_norm_eps=1e-5, max_position_embeddings=32,
        tie_word_embeddings=tied, attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": theta})
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that attention is not uniform and gains are not 1
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    folder = os.path.join(FOLDER, name)
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    loaded = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ids = torch.randint(0, 19, (2, 9))
    with torch.no_grad():
        logits = loaded(input_ids=ids).logits
    safetensors.torch.save_file(
        {"ids": ids.int(), "logits": logits.contiguous()}, os.path.join(folder, "expected.safetensors"),
        metadata={"made by": "test/parity/make/checkpoint.py", "torch": torch.__version__,
                  "transformers": transformers.__version__})
