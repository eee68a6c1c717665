"""Makes test/backend/machine/instructions.json: instructions, and the bytes that GNU's assembler makes of them.

    python3 test/parity/make/instructions.py        (as, nm and objcopy of binutils 2.40)

A row is the name in src/backend/machine/Assembler.ts, what it is given (memory is [base, distance], a jump the distance
from its start), the text that the assembler read, and its bytes. Where the assembler would choose a shorter form it is
told not to ({disp32}, movabs), or given a number that needs four bytes; rax, which has a form of its own for such a
number, is left out there.
"""
import json
import os
import subprocess
import tempfile

FILE = os.path.join(os.path.dirname(__file__), "..", "..", "backend", "machine", "instructions.json")

REGISTERS = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] + [f"r{number}" for number in range(8, 16)]
BASES = REGISTERS + ["rsp", "r12", "rbp", "r13"]
DISTANCES = [0, 4, -4, 64, 2048, -128, 2**31 - 4, -(2**31)]
NUMBERS = [128, -129, 1000, -65536, 0x12345678, 2**31 - 1, -(2**31)]
VECTORS = [0, 7, 8, 15, 16, 23, 31]


def memories(size):
    for index, base in enumerate(BASES):
        distance = DISTANCES[(index + index // 8) % len(DISTANCES)]
        yield index, [base, distance], f"{size} [{base}{distance:+d}]"


def vector(index):
    return VECTORS[index % len(VECTORS)]


def masked(mask):
    return f"{{k{mask}}}" if mask > 0 else ""


def cases():
    for name, code, size in ("load", "mov", "qword ptr"), ("store", "mov", "qword ptr"), ("address", "lea", ""):
        for index, memory, text in memories(size):
            register = REGISTERS[(3 * index + index // 16) % 16]
            operands = f"{text}, {register}" if name == "store" else f"{register}, {text}"
            yield name, [register, memory], f"{{disp32}} {code} {operands}"
    for name, code in ("copy", "mov"), ("add", "add"), ("subtract", "sub"), ("test", "test"):
        for index, target in enumerate(REGISTERS):
            source = REGISTERS[(5 * index + 3) % 16]
            yield name, [target, source], f"{code} {target}, {source}"
    for name, code in ("addNumber", "add"), ("subtractNumber", "sub"), ("compareNumber", "cmp"):
        for index, register in enumerate(REGISTERS[1:]):
            value = NUMBERS[index % len(NUMBERS)]
            yield name, [register, value], f"{code} {register}, {value}"
    for index, target in enumerate(REGISTERS):
        source, value = REGISTERS[(7 * index + 4) % 16], NUMBERS[index % len(NUMBERS)]
        yield "multiply", [target, source, value], f"imul {target}, {source}, {value}"
    values = [0, 1, -1, 0xFFFF, 2**31, -(2**31) - 1, 2**32 + 5, 0x7F1234567890 - 1, 2**53 - 1, -(2**53) + 1]
    for index, register in enumerate(REGISTERS):
        value = values[index % len(values)]
        yield "set", [register, value], f"movabs {register}, {value}"
    for name in "push", "pop", "call":
        for register in REGISTERS:
            yield name, [register], f"{name} {register}"
    yield "end", None, "ret"
    yield "leaveVectors", None, "vzeroupper"
    for name, code in ("jumpIfNotEqual", "jne"), ("jumpIfLess", "jl"):
        for distance in 300, 4000, -300, -4000:
            yield name, [distance], f"{code} .{distance:+d}"
    for _, memory, text in memories("byte ptr"):
        yield "prefetch", [memory], f"{{disp32}} prefetcht0 {text}"
    for index, register in enumerate(["rax", "rcx", "rdx", "rbx", "rsi", "rdi", "rax"]):
        yield "setMask", [index + 1, register], f"kmovw k{index + 1}, e{register[1:]}"
    for index in range(14):
        target, first, second = vector(index), vector(2 * index + 3 + index // 7), vector(3 * index + 5)
        yield "addVectors", [target, first, second], f"{{evex}} vaddps zmm{target}, zmm{first}, zmm{second}"
    for index, memory, text in memories("dword ptr"):
        target, first, mask = vector(index), vector(3 * index + 2 + index // 7), index % 8
        yield ("multiplyAddNumber", [target, first, memory] + ([mask] if mask > 0 else []),
               f"{{disp32}} vfmadd231ps zmm{target}{masked(mask)}, zmm{first}, {text}{{1to16}}")
    for name in "loadVector", "storeVector":
        for index, memory, text in memories("zmmword ptr"):
            target, mask = vector(index), (index // 2) % 8
            operands = f"{text}{masked(mask)}, zmm{target}" if name == "storeVector" \
                else f"zmm{target}{masked(mask)}, {text}"
            yield name, [target, memory] + ([mask] if mask > 0 else []), f"{{disp32}} vmovups {operands}"
    for target in VECTORS:
        yield "clear", [target], f"vpxord zmm{target}, zmm{target}, zmm{target}"


def bytes_of(texts):
    with tempfile.TemporaryDirectory() as folder:
        source, code, raw = (os.path.join(folder, name) for name in ("a.s", "a.o", "a.bin"))
        with open(source, "w") as file:
            file.write(".intel_syntax noprefix\n")
            file.writelines(f"case_{index}: {text}\n" for index, text in enumerate(texts + ["nop"]))
        subprocess.run(["as", "--64", "-o", code, source], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", code, raw], check=True)
        lines = subprocess.run(["nm", code], check=True, capture_output=True, text=True).stdout.split("\n")
        places = dict((name, int(offset, 16)) for offset, _, name in (line.split() for line in lines if line))
        with open(raw, "rb") as file:
            content = file.read()
    return [content[places[f"case_{index}"]:places[f"case_{index + 1}"]].hex() for index in range(len(texts))]


rows = list(cases())
encoded = bytes_of([text for _, _, text in rows])
version = subprocess.run(["as", "--version"], capture_output=True, text=True).stdout.split("\n")[0]
lines = [json.dumps([*row, code]) for row, code in zip(rows, encoded)]
with open(FILE, "w") as file:
    file.write(json.dumps({"assembler": version})[:-1] + ', "instructions": [\n' + ",\n".join(lines) + "\n]}\n")
