"""Hugging Face's tokenizers library as the oracle of tokenizer.json.

    python tokenizer_json.py fixture <folder>                              writes the committed fixture beside llama.model
    python tokenizer_json.py cases <tokenizer.json> <count> <seed>         prints what the library makes of a file
    python tokenizer_json.py convert <tokenizer.model> <folder> <legacy>   writes a folder as transformers does

Needs `pip install transformers tokenizers sentencepiece protobuf` (the fixture names the versions that made it). Hard
text comes from `tokenizer.py` beside this file; nothing is copied from anywhere.

A case is [text, ids without specials], or [[segment, …], ids], where "<s>" and "</s>" among the segments were read as
control tokens by the library.
"""
import json
import os
import random
import sys

import tokenizers
import transformers
from tokenizers import processors
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import LlamaConverter, generate_merges

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tokenizer as oracle

TEMPLATE = "{% for message in messages %}{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}{% endfor %}"


class Slow:
    """What the converter asks of a tokenizer that SentencePiece runs."""

    def __init__(self, path, legacy):
        self.vocab_file, self.legacy, self.add_prefix_space = path, legacy, True

    def convert_ids_to_tokens(self, token):
        return ["<unk>", "<s>", "</s>"][token]


class Converter(LlamaConverter):
    """The converter of transformers, with the merges ordered by score, as in version 4 and in Llama's own file."""

    class SpmExtractor:
        def __init__(self, path):
            pass

        def extract(self, vocab_scores):
            return None, generate_merges({piece: i for i, (piece, _) in enumerate(vocab_scores)}, vocab_scores)


def converted(path, legacy):
    made = Converter(Slow(path, legacy)).converted()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return made


def save(path, folder, legacy):
    os.makedirs(folder, exist_ok=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=converted(path, legacy), unk_token="<unk>", bos_token="<s>", eos_token="</s>", legacy=legacy,
        add_bos_token=True, add_eos_token=False, model_max_length=4096, chat_template=TEMPLATE,
    )
    fast.save_pretrained(folder, save_jinja_files=False)


def plain(text):
    """Whether no added token stands in the text, where the library would read it as such and Cria would not."""
    return not any(token in text for token in ("<s>", "</s>", "<unk>"))


def cases(made, count, seed):
    r = random.Random(seed)

    def text():
        while True:
            found = oracle.hard_bytes(r).decode("utf8", "replace")
            if plain(found):
                return found

    for i in range(count):
        if i % 4 == 3:
            segments = []
            for _ in range(r.randrange(1, 5)):
                if not segments or segments[-1] in ("<s>", "</s>"):
                    segments.append(r.choice([text(), text(), "<s>", "</s>", " " + text()]))
                else:
                    segments.append(r.choice(["<s>", "</s>"]))
            yield [segments, made.encode("".join(segments), add_special_tokens=False).ids]
        else:
            given = text()
            yield [given, made.encode(given, add_special_tokens=False).ids]


def write_fixture(folder):
    model = os.path.join(folder, "llama.model")
    fixture = {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__, "cases": {}}
    for name, legacy in (("legacy", True), ("non-legacy", False)):
        target = os.path.join(folder, name)
        save(model, target, legacy)
        made = tokenizers.Tokenizer.from_file(os.path.join(target, "tokenizer.json"))
        with open(os.path.join(target, "tokenizer.json"), "w") as file:
            json.dump(json.loads(made.to_str()), file, ensure_ascii=True, separators=(",", ":"))
        fixture["cases"][name] = list(cases(made, 600, 3))
    with open(os.path.join(folder, "tokenizer-json.json"), "w") as file:
        json.dump(fixture, file, ensure_ascii=True, separators=(",", ":"))


if __name__ == "__main__":
    if sys.argv[1] == "fixture":
        write_fixture(sys.argv[2])
    elif sys.argv[1] == "convert":
        save(sys.argv[2], sys.argv[3], sys.argv[4] == "true")
    else:
        made = tokenizers.Tokenizer.from_file(sys.argv[2])
        for case in cases(made, int(sys.argv[3]), int(sys.argv[4])):
            print(json.dumps(case))
