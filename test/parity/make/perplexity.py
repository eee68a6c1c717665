"""Makes test/parity/perplexity/*: a tiny random Llama as Hugging Face saves it, and how it foretells a text.

    python test/parity/make/perplexity.py        (torch and transformers; versions are kept in the file)

Tokens are those of Cria's bytes: <unk>, <s>, </s>, then a token for each byte; each document begins with <s>. Windows
are those of the guide "Perplexity of fixed-length models" of transformers' documentation, in float64:

    for begin in range(0, length, stride):
        end = min(begin + max_length, length)
        labels of all but the last (end - previous end) tokens are -100; the model shifts them by one

A window of `max_length` tokens predicts `max_length - 1` of them: it is Cria's window `max_length - 1`. The guide
weighs each window's loss by its labels less one, which is what the first window predicts, and one too few of every
later one; here each weighs as many as it predicts.
"""
import json
import math
import os
import shutil

import torch
import transformers

FOLDER = os.path.join(os.path.dirname(__file__), "..", "perplexity")
DOCUMENTS = [
    "The llama's cria hums at dawn; its mother answers. Où est l'herbe? 🦙\n",
    "It was the best of times."
]
PROMPT, ANSWER = "It was the best of ", "llamas."

torch.manual_seed(7)
config = transformers.LlamaConfig(
    vocab_size=259, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=4, rms_norm_eps=1e-5, max_position_embeddings=32, tie_word_embeddings=False,
    attn_implementation="eager", rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
model = transformers.LlamaForCausalLM(config)
with torch.no_grad():
    for parameter in model.parameters():  # large enough that losses differ much from token to token
        parameter.copy_(torch.randn_like(parameter) * 0.4)
shutil.rmtree(FOLDER, ignore_errors=True)
model.to(torch.float32).save_pretrained(FOLDER)
model = model.double()


def encode(text):
    return [3 + byte for byte in text.encode()]


def strided(ids, max_length, stride):
    ids = torch.tensor([ids])
    length = ids.size(1)
    nats, count, previous = 0.0, 0, 0
    for begin in range(0, length, stride):
        end = min(begin + max_length, length)
        labels = ids[:, begin:end].clone()
        labels[:, :-(end - previous)] = -100
        with torch.no_grad():
            loss = model(ids[:, begin:end], labels=labels).loss.item()
        predicted = (labels[:, 1:] != -100).sum().item()
        nats, count = nats + loss * predicted, count + predicted
        previous = end
        if end == length:
            break
    return nats, count


cases = []
for documents in (DOCUMENTS[:1], DOCUMENTS):
    ids = [token for text in documents for token in [1, *encode(text)]]
    size = sum(len(text.encode()) for text in documents)
    for window, stride in ((31, 31), (31, 16), (8, 5), (8, 1)):
        nats, count = strided(ids, window + 1, stride)
        cases.append({
            "documents": len(documents), "window": window, "stride": stride, "tokenCount": count, "byteCount": size,
            "loss": nats / count, "perplexity": math.exp(nats / count), "bitsPerByte": nats / math.log(2) / size})

prompt, answer = [1, *encode(PROMPT)], encode(ANSWER)
with torch.no_grad():
    logits = model(torch.tensor([prompt + answer])).logits[0]
log_probabilities = torch.log_softmax(logits, dim=-1)
score = [log_probabilities[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)]

with open(os.path.join(FOLDER, "expected.json"), "w", encoding="utf-8") as file:
    json.dump({
        "made by": "test/parity/make/perplexity.py", "torch": torch.__version__,
        "transformers": transformers.__version__, "texts": DOCUMENTS, "cases": cases,
        "continuation": {"prompt": PROMPT, "answer": ANSWER, "logProbs": score}
    }, file, ensure_ascii=False, indent=1)
