"""Makes test/parity/meta/*: tiny random Llamas in shards as Meta's, and the scores that transformers gives them.

    python test/parity/make/meta.py        (torch, transformers and safetensors; versions are kept in the files)

Shards are cut as Meta's parallel layers cut them, and joined again as in transformers' convert_llama_weights_to_hf.py:
matrices whose outputs are spread over their rows, those whose inputs are over their columns, the embedding over its
columns; gains are in each shard whole.
"""
import json
import os
import shutil

import safetensors.torch
import torch
import transformers

FOLDER = os.path.join(os.path.dirname(__file__), "..", "meta")

KINDS = {  # name: key and value heads, stored as, shards
    "mha-f32-4": (4, torch.float32, 4),
    "gqa-f16-2": (2, torch.float16, 2),
    "gqa-bf16-1": (2, torch.bfloat16, 1),
}
ROWS, COLUMNS, WHOLE = 0, 1, None


def interleaved(matrix, heads):
    return matrix.view(heads, 2, matrix.shape[0] // heads // 2, -1).transpose(1, 2).reshape(matrix.shape)


for seed, (name, (kv_heads, dtype, shards)) in enumerate(KINDS.items()):
    torch.manual_seed(100 + seed)
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, rms_norm_eps=1e-5, max_position_embeddings=32, attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that attention is not uniform and gains are not 1
            parameter.copy_((torch.randn_like(parameter) * 0.4).to(dtype).float())
    stored = {key: value.to(dtype) for key, value in model.state_dict().items()}
    tensors = {
        "tok_embeddings.weight": (stored["model.embed_tokens.weight"], COLUMNS),
        "norm.weight": (stored["model.norm.weight"], WHOLE),
        "output.weight": (stored["lm_head.weight"], ROWS),
        "rope.freqs": (10000.0 ** (-torch.arange(0, 4, 2).float() / 4), WHOLE),
    }
    for i in range(2):
        theirs, ours = f"model.layers.{i}.", f"layers.{i}."
        for key, source, cut in (
            ("attention.wv", "self_attn.v_proj", ROWS), ("attention.wo", "self_attn.o_proj", COLUMNS),
            ("feed_forward.w1", "mlp.gate_proj", ROWS), ("feed_forward.w2", "mlp.down_proj", COLUMNS),
            ("feed_forward.w3", "mlp.up_proj", ROWS), ("attention_norm", "input_layernorm", WHOLE),
            ("ffn_norm", "post_attention_layernorm", WHOLE),
        ):
            tensors[f"{ours}{key}.weight"] = (stored[f"{theirs}{source}.weight"], cut)
        for key, source, heads in (("wq", "q_proj", 4), ("wk", "k_proj", kv_heads)):
            matrix = interleaved(stored[f"{theirs}self_attn.{source}.weight"], heads)
            tensors[f"{ours}attention.{key}.weight"] = (matrix, ROWS)
    folder = os.path.join(FOLDER, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for shard in range(shards):
        torch.save({key: (tensor if cut is WHOLE else tensor.chunk(shards, cut)[shard]).clone(
            memory_format=torch.contiguous_format) for key, (tensor, cut) in tensors.items()},
            os.path.join(folder, f"consolidated.{shard:02d}.pth"))
    with open(os.path.join(folder, "params.json"), "w") as file:
        json.dump({"dim": 16, "multiple_of": 16, "n_heads": 4, "n_layers": 2, "norm_eps": 1e-05, "vocab_size": 20,
                   **({} if kv_heads == 4 else {"n_kv_heads": kv_heads})}, file)
    ids = torch.randint(0, 20, (2, 9))
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    safetensors.torch.save_file(
        {"ids": ids.int(), "logits": logits.contiguous()}, os.path.join(folder, "expected.safetensors"),
        metadata={"made by": "test/parity/make/meta.py", "torch": torch.__version__,
                  "transformers": transformers.__version__})
