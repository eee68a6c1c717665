"""The SentencePiece library as the oracle of the tokenizer.

    python tokenizer.py fixture <folder>              writes the committed fixture
    python tokenizer.py cases <model> <count> <seed>  prints fresh cases, one JSON array a line
    python tokenizer.py dropout <model> <count> <rate>  prints, for a few texts, how often dropout gave which ids

Needs `pip install sentencepiece` (the fixture names the version that made it). All text is made here, by a small grammar
and a random generator with a fixed seed: nothing is copied from anywhere.

A case is ["e", base64 of the input bytes, ids] or ["d", ids, decoded text].
"""
import base64
import hashlib
import io
import json
import os
import random
import struct
import sys

import sentencepiece

SUBJECTS = "the llama|a small cria|my neighbour|the old shepherd|nobody|Zoë|der Müller|la petite fille|пастух|羊飼い|牧羊人".split("|")
VERBS = "walks|sleeps|doesn't listen|counts|isn't counting|remembers|läuft|mange|спит|眠る|走路".split("|")
PLACES = "on the hill|under a tree|near the river's edge|by 7 o'clock|at 12:30|im Dorf|à côté|на горе|山の上で|在河边".split("|")
ENDS = [".", "!", "?", "...", "  ", " (again)", "\t#", " -> 42", " 🦙", " 🏔️", ";", " \r,"]


def sentence(r):
    words = [r.choice(SUBJECTS), r.choice(VERBS), r.choice(PLACES)]
    if r.random() < 0.3:
        words.insert(r.randrange(4), str(r.randrange(10 ** r.randrange(1, 6))))
    if r.random() < 0.2:
        words.append("for i in range(%d): total += x[i]  # %s" % (r.randrange(99), r.choice(VERBS)))
    return ("   " if r.random() < 0.1 else " ").join(words) + r.choice(ENDS)


def corpus(seed, lines):
    r = random.Random(seed)
    return [sentence(r) for _ in range(lines)]


HARD = [
    " ", "  ", " " * 15, " " * 16, " " * 17, "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufeff", "\u2581", "\u2581\u2581",
    "\u2585", "\ufffd", "\x00", "<s>", "</s>", "<unk>", "<pad>", "<0x0A>", "<0x", "e\u0301", "\u212b", "\ufb01", "１２３", "٣", "²", "Ⅷ", "½",
    "the", "The", "llama", "cria", "ing", "n't", "Müller", "пастух", "羊飼い", "牧羊人", "🦙", "🏔️", "👩‍👩‍👧", "aaaa", "abab", "0", "12345", "...", "()",
    "[SEP]", "[SEP", "x y", "SEP]",
]
BROKEN = [b"\xff", b"\xfe\xff", b"\xe4\xbd", b"\xf0\x9f\xa6", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x96"]


def hard_bytes(r):
    out = b""
    for _ in range(r.randrange(1, 14)):
        kind = r.random()
        if kind < 0.45:
            out += r.choice(HARD).encode()
        elif kind < 0.6:
            out += sentence(r).encode()[: r.randrange(1, 40)]
        elif kind < 0.75:
            out += "".join(r.choice("abcdeghilmnorstu  ") for _ in range(r.randrange(1, 30))).encode()
        elif kind < 0.9:
            point = r.choice([r.randrange(0x80), r.randrange(0x800), r.randrange(0x10000), r.randrange(0x110000)])
            out += b"?" if 0xD800 <= point < 0xE000 else chr(point).encode()
        elif kind < 0.95:
            out += r.choice(BROKEN)
        else:
            out += bytes(r.randrange(256) for _ in range(r.randrange(1, 5)))
    return out


def hard_ids(r, processor):
    size = processor.get_piece_size()
    return [
        r.choice([0, 1, 2, r.randrange(min(size, 259)), r.randrange(min(size, 259)), r.randrange(size), r.randrange(size)])
        for _ in range(r.randrange(1, 16))
    ]


def cases(processor, count, seed):
    r = random.Random(seed)
    for i in range(count):
        if i % 4 == 3:
            ids = hard_ids(r, processor)
            yield ["d", ids, processor.decode(ids)]
        else:
            text = hard_bytes(r)
            yield ["e", base64.b64encode(text).decode(), processor.encode(text)]


LLAMA = dict(
    model_type="bpe", character_coverage=0.99995, split_digits=True, allow_whitespace_only_pieces=True, byte_fallback=True,
    normalization_rule_name="identity", remove_extra_whitespaces=False, num_threads=1, minloglevel=2,
)


def train(lines, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **{**LLAMA, **options})
    return model.getvalue()


def edited(model, change):
    """The model with each piece's (text, score, type) replaced by what `change` makes of it; other fields as they are."""
    out, at = b"", 0
    while at < len(model):
        start, key = at, model[at]
        size, shift, at = 0, 0, at + 1
        while True:
            size |= (model[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if model[at - 1] < 128:
                break
        if key == 0x0A:  # a piece: 0A text, 15 score, 18 type; all shorter than 128 bytes
            body = model[at:at + size]
            length = body[1]
            score = struct.unpack("<f", body[3 + length:7 + length])[0]
            text, score, kind = change(body[2:2 + length].decode(), score, body[-1] if len(body) > 7 + length else 1)
            body = b"\x0a" + bytes([length]) + text.encode() + b"\x15" + struct.pack("<f", score)
            body += b"" if kind == 1 else b"\x18" + bytes([kind])
            out += b"\x0a" + bytes([len(body)]) + body
        else:
            out += model[start:at + size]
        at += size
    return out


def patched(model):
    """Meta's touch: whitespace-only pieces get the lowest score."""
    return edited(model, lambda text, score, kind: (text, -1e9 if text.strip("\u2581") == "" else score, kind))


def partly_unused(model):
    """A third of the pieces are of type UNUSED: formed on the way to others, then taken apart again."""
    r = random.Random(5)
    return edited(model, lambda text, score, kind: (text, score, 5 if kind == 1 and r.random() < 0.33 else kind))


def write_fixture(folder):
    os.makedirs(folder, exist_ok=True)
    lines = corpus(1, 1500)
    rules = os.path.join(folder, "rules.tsv")
    with open(rules, "w") as file:  # fi ligature, Angstrom sign, ideographic space, no-break space, "..." to an ellipsis, zero width space to nothing
        for source, target in [("FB01", "66 69"), ("212B", "C5"), ("3000", "20"), ("A0", "20"), ("2E 2E 2E", "2026"), ("200B", ""), ("65 301", "E9")]:
            file.write(source + "\t" + target + "\n")
    models = {
        "llama": patched(train(lines, vocab_size=700)),
        "plain": train(lines, vocab_size=500, byte_fallback=False, split_digits=False, character_coverage=0.98, allow_whitespace_only_pieces=False),
        "symbols": train(lines, vocab_size=600, user_defined_symbols=["[SEP]", "lla", "\u2581the", "the llama"], control_symbols=["<ctl>"], pad_id=3),
        "rules": train(lines, vocab_size=600, normalization_rule_tsv=rules, remove_extra_whitespaces=True, unk_surface="?"),
        "infix": train(lines, vocab_size=450, split_by_whitespace=False, add_dummy_prefix=False, byte_fallback=False),
        "unused": partly_unused(train(lines, vocab_size=600)),
        "suffix": train(lines, vocab_size=600, treat_whitespace_as_suffix=True),
    }
    os.remove(rules)
    fixture = {"sentencepiece": sentencepiece.__version__, "script": "test/parity/make/tokenizer.py", "seed": 1, "models": {}, "training": []}
    for name, model in models.items():
        with open(os.path.join(folder, name + ".model"), "wb") as file:
            file.write(model)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        fixture["models"][name] = list(cases(processor, 900 if name == "llama" else 300, 2))
    corpora = {"mixed": lines, "english": [l for l in lines if l.isascii()], "letters": letters(3, 400)}
    options = {
        "llama": {},
        "digits and no bytes": dict(split_digits=False, byte_fallback=False),
        "across scripts": dict(split_by_unicode_script=False, allow_whitespace_only_pieces=False),
        "short, rare characters left out": dict(max_sentencepiece_length=4, character_coverage=0.98),
        "symbols": dict(user_defined_symbols=["llama", "the llama", "\u2581under", "a+b*"], control_symbols=["<ctl>"], required_chars="1b", character_coverage=0.98),
    }
    for corpus_name, text in corpora.items():
        for option_name, extra in options.items():
            for size in (360, 520):
                size -= 0 if extra.get("byte_fallback", True) else 256
                model = train(text, vocab_size=size, **extra)
                processor = sentencepiece.SentencePieceProcessor(model_proto=model)
                pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
                digest = hashlib.sha256("\n".join(pieces).encode()).hexdigest()
                fixture["training"].append({"corpus": corpus_name, "options": option_name, "vocabSize": size, "sha256": digest})
    fixture["corpora"] = {"mixed": "\n".join(lines), "letters": "\n".join(corpora["letters"])}
    with open(os.path.join(folder, "cases.json"), "w") as file:
        json.dump(fixture, file, ensure_ascii=True, separators=(",", ":"))


def letters(seed, count):
    r = random.Random(seed)
    return ["".join(r.choice("aaab bc  d1é") for _ in range(r.randrange(1, 60))) for _ in range(count)]


def dropout(processor, count, rate):
    for text in ["the llama", "sleeps", "  12 a", "Müller", "羊飼い 🦙", "neighbour"]:
        found = {}
        for _ in range(count):
            ids = " ".join(map(str, processor.encode(text, enable_sampling=True, alpha=rate, nbest_size=-1)))
            found[ids] = found.get(ids, 0) + 1
        yield [text, found]


if __name__ == "__main__":
    if sys.argv[1] == "fixture":
        write_fixture(sys.argv[2])
    elif sys.argv[1] == "dropout":
        with open(sys.argv[2], "rb") as file:
            processor = sentencepiece.SentencePieceProcessor(model_proto=file.read())
        for row in dropout(processor, int(sys.argv[3]), float(sys.argv[4])):
            print(json.dumps(row))
    else:
        with open(sys.argv[2], "rb") as file:
            processor = sentencepiece.SentencePieceProcessor(model_proto=file.read())
        for case in cases(processor, int(sys.argv[3]), int(sys.argv[4])):
            print(json.dumps(case))
