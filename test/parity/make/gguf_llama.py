"""Makes test/parity/gguf/*: tiny random Llamas in GGUF as the gguf package writes them, and their scores.

    python test/parity/make/gguf_llama.py    (gguf, numpy, torch, transformers, safetensors, sentencepiece)

`spm.gguf` has the vocabulary of tokenizer/llama.model ("llama": pieces with scores and types), F32 and tied;
`merges.gguf` has the vocabulary of GPT-2's kind ("gpt2": tokens and merges), F16 and a head of its own. Queries and keys
are permuted as llama.cpp's converter does. Beside each, the scores that transformers gives the same weights in float32,
and for the first what the SentencePiece library makes of a few texts.
"""
import importlib.metadata
import json
import os

import gguf
import numpy
import safetensors.torch
import sentencepiece
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "..", "gguf")
os.makedirs(FOLDER, exist_ok=True)
HEADS, KV_HEADS, EMBED, HIDDEN, LAYERS, LENGTH = 4, 2, 16, 24, 2, 32
TEXTS = ["the llama walks on the hill.", " two  spaces", "", "\t42 über 羊飼い 🦙", "<s> is text </s>", "a\nb\r\n"]


def model_of(seed, vocab, tied):
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=EMBED, intermediate_size=HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, rms_norm_eps=1e-5, max_position_embeddings=LENGTH,
        tie_word_embeddings=tied, attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}))
    with torch.no_grad():
        for parameter in model.parameters():  # exact in F16, so that all widths have the same scores
            parameter.copy_((torch.randn_like(parameter) * 0.4).half().float())
    return model


def permuted(weight, heads):
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj":
    "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def write(name, model, dtype, tied, vocabulary):
    writer = gguf.GGUFWriter(os.path.join(FOLDER, name), "llama")
    writer.add_name("a tiny random Llama")
    writer.add_context_length(LENGTH)
    writer.add_embedding_length(EMBED)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(EMBED // HEADS)
    writer.add_rope_freq_base(10000.0)
    vocabulary(writer)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    add = lambda key, value: writer.add_tensor(key, value.astype(numpy.float32 if value.ndim == 1 else dtype))
    add("token_embd.weight", state["model.embed_tokens.weight"])
    add("output_norm.weight", state["model.norm.weight"])
    if not tied:
        add("output.weight", state["lm_head.weight"])
    for layer in range(LAYERS):
        for theirs, ours in NAMES.items():
            value = state[f"model.layers.{layer}.{theirs}.weight"]
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(ours)
            add(f"blk.{layer}.{ours}.weight", value if heads is None else permuted(value, heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def scores(name, model, vocab, **more):
    ids = torch.randint(0, vocab, (1, 5))
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    safetensors.torch.save_file({"ids": ids.int(), "logits": logits.contiguous()}, os.path.join(FOLDER, name), metadata={
        "made by": "test/parity/make/gguf_llama.py", "torch": torch.__version__, "gguf": importlib.metadata.version("gguf"),
        "transformers": transformers.__version__, "sentencepiece": sentencepiece.__version__, **more})


library = sentencepiece.SentencePieceProcessor(model_file=os.path.join(HERE, "..", "tokenizer", "llama.model"))


def pieces(writer):
    kinds = gguf.TokenType
    count = library.vocab_size()
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([library.id_to_piece(i).encode() for i in range(count)])
    writer.add_token_scores([library.get_score(i) for i in range(count)])
    writer.add_token_types([
        kinds.UNKNOWN if library.is_unknown(i) else kinds.CONTROL if library.is_control(i) else
        kinds.BYTE if library.is_byte(i) else kinds.NORMAL for i in range(count)])
    writer.add_bos_token_id(library.bos_id())
    writer.add_eos_token_id(library.eos_id())
    writer.add_unk_token_id(library.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def merges(writer):
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["a", "b", "Ġ", "ab", "Ġa", "Ġab", "<|end|>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * 6 + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["a b", "Ġ a", "Ġ ab"])
    writer.add_bos_token_id(6)
    writer.add_eos_token_id(6)


spm = model_of(1, library.vocab_size(), True)
write("spm.gguf", spm, numpy.float32, True, pieces)
scores("spm.safetensors", spm, library.vocab_size(), encoded=json.dumps([[text, library.encode(text)] for text in TEXTS]))
gpt2 = model_of(2, 7, False)
write("merges.gguf", gpt2, numpy.float16, False, merges)
scores("merges.safetensors", gpt2, 7)
