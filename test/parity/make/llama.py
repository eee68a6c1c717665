"""Makes test/parity/llama/*.safetensors: tiny random Llamas of Hugging Face, their scores and all gradients.

    python test/parity/make/llama.py        (torch, transformers and safetensors; versions are kept in the files)

Weights, scores and gradients are float64; Hugging Face's RMSNorm and rotary tables compute in float32 all the same.
Names are those of Hugging Face; a gradient is named `gradient.` and the name of its weight. The loss is the mean
cross-entropy over the tokens whose mask is 1.
"""
import os

import safetensors.torch
import torch
import transformers

FOLDER = os.path.join(os.path.dirname(__file__), "..", "llama")


def make(name, kv_heads, seed):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=19, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, rms_norm_eps=1e-5, max_position_embeddings=32, tie_word_embeddings=False,
        attn_implementation="eager", rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    model = transformers.LlamaForCausalLM(config).double()
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that attention is not uniform and gains are not 1
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    ids, targets = torch.randint(0, 19, (2, 9)), torch.randint(0, 19, (2, 9))
    mask = torch.ones(2, 9)
    mask[0, :3] = 0
    logits = model(input_ids=ids).logits
    losses = torch.nn.functional.cross_entropy(logits.reshape(-1, 19), targets.reshape(-1), reduction="none")
    loss = (losses.reshape(2, 9) * mask).sum() / mask.sum()
    loss.backward()
    tensors = {"ids": ids.int(), "targets": targets.int(), "mask": mask, "logits": logits.detach(), "loss": loss.detach()}
    for path, parameter in model.named_parameters():
        tensors[path] = parameter.detach()
        tensors["gradient." + path] = parameter.grad
    metadata = {
        "made by": "test/parity/make/llama.py", "torch": torch.__version__, "transformers": transformers.__version__,
        "vocabSize": "19", "embedSize": "16", "hiddenSize": "24", "layerCount": "2", "headCount": "4",
        "kvHeadCount": str(kv_heads), "contextLength": "32"}
    safetensors.torch.save_file(
        {key: value.contiguous() for key, value in tensors.items()}, os.path.join(FOLDER, name), metadata=metadata)


make("mha.safetensors", 4, 1)
make("gqa.safetensors", 2, 2)
