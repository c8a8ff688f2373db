"""A deliberately naive model of XSAVE areas, which shares no code and no data with qmigtool.

Sizes, offsets and initial configurations are typed in from the manuals. A state is a dict: component bit -> contents,
where a missing bit is a component in its initial configuration, and `mxcsr` apart.
"""

import random
import struct

SIZES = {
    2: 256,
    3: 64,
    4: 64,
    5: 64,
    6: 512,
    7: 1024,
    8: 128,
    9: 8,
    10: 8,
    11: 16,
    12: 24,
    13: 8,
    14: 48,
    15: 808,
    16: 8,
    17: 64,
    18: 8192,
    19: 128,
    62: 128,
}
ALIGNED = {17, 18}
SUPERVISOR = {8, 10, 11, 12, 13, 14, 15, 16}

INTEL = {2: 576, 3: 960, 4: 1024, 5: 1088, 6: 1152, 7: 1664, 9: 2688, 17: 2752, 18: 2816, 19: 960}
AMD = {2: 576, 5: 832, 6: 896, 7: 1408, 9: 2432}

# name: (user components above bit 1, standard offsets, supervisor components)
LAYOUTS = {
    "amd-bulldozer": ([2, 62], {2: 576, 62: 832}, []),
    "amd-zen1": ([2], AMD, []),
    "amd-zen2": ([2], AMD, []),
    "amd-zen2-lwp": ([2, 62], {2: 576, 62: 896}, []),
    "amd-zen3": ([2, 9], AMD, [11, 12]),
    "amd-zen4": ([2, 5, 6, 7, 9], AMD, [11, 12]),
    "amd-zen4c": ([2, 5, 6, 7, 9], AMD, [11, 12]),
    "amd-zen5": ([2, 5, 6, 7, 9], AMD, [11, 12]),
    "hygon-dhyana": ([2], AMD, []),
    "intel-hsw": ([2], INTEL, []),
    "intel-skl": ([2, 3, 4], INTEL, [8]),
    "intel-knl": ([2, 5, 6, 7], INTEL, []),
    "intel-skx": ([2, 3, 4, 5, 6, 7, 9], INTEL, [8]),
    "intel-clx": ([2, 3, 4, 5, 6, 7, 9], INTEL, [8]),
    "intel-icl": ([2, 5, 6, 7, 9], INTEL, [8, 13]),
    "intel-icx": ([2, 5, 6, 7, 9], INTEL, [8]),
    "intel-tgl": ([2, 5, 6, 7, 9], INTEL, [8, 11, 12, 13]),
    "intel-adl": ([2, 5, 6, 7, 9], INTEL, [8, 11, 12, 15, 16]),
    "intel-adl-noavx512": ([2, 9], INTEL, [8, 11, 12, 15, 16]),
    "intel-rpl": ([2, 9], INTEL, [8, 11, 12, 15, 16]),
    "intel-spr": ([2, 5, 6, 7, 9, 17, 18], INTEL, [8, 10, 11, 12, 14, 15]),
    "intel-emr": ([2, 5, 6, 7, 9, 17, 18], INTEL, [8, 10, 11, 12, 14, 15]),
    "intel-gnr": ([2, 5, 6, 7, 9, 17, 18], INTEL, [8, 10, 11, 12, 14, 15, 16]),
    "intel-lnl": ([2, 9], INTEL, [8, 11, 12, 14, 15, 16]),
    "intel-ptl": ([2, 9], INTEL, [8, 11, 12, 14, 15, 16]),
    "intel-wcl": ([2, 9], INTEL, [8, 11, 12, 14, 15, 16]),
    "zhaoxin-cns": ([2, 3, 4, 5, 6, 7, 9], INTEL, []),
    "zhaoxin-kx7000": ([2, 9], INTEL, [16]),
    "amd-zen4-kvm": ([2, 5, 6, 7], AMD, [11, 12]),
    "amd-zen2-linux": ([2], AMD, []),
    "intel-spr-linux": ([2, 5, 6, 7, 9, 17, 18], INTEL, [8, 10, 11, 12, 14, 15]),
    "hyperv-snp": ([2], AMD, [11, 12]),
    "qemu": ([2, 3, 4, 5, 6, 7, 9, 17, 18, 19], INTEL, [11, 12, 15]),
    "tcg": ([2, 3, 4, 9], INTEL, []),
}


def legal_xcr0(name):
    """Every value XCR0 can have on this CPU: x87 always, AVX needs SSE, MPX, AVX-512 and AMX whole or not at all."""
    masks = [1, 3]
    users = LAYOUTS[name][0]
    if 2 in users:
        masks.append(7)
    for group, needs in (([3, 4], 3), ([5, 6, 7], 7), ([9], 3), ([17, 18], 3), ([19], 3), ([62], 3)):
        if set(group) <= set(users):
            add = sum(1 << bit for bit in group)
            masks += [mask | add for mask in masks if mask & needs == needs]
    return [mask for mask in masks if not (mask & 0x80000 and mask & 0x18)]


def some_state(name, mask, seed):
    """Random, never initial contents for each component of `mask`."""
    rng = random.Random(seed)  # noqa: S311
    state = {}
    for bit in range(63):
        if mask >> bit & 1:
            size = {0: 152, 1: 256}.get(bit) or SIZES[bit]
            state[bit] = bytes([1 + rng.randrange(255)]) + rng.randbytes(size - 1)
    if 0 in state:  # MXCSR and its mask are between byte 24 and 32, so x87 has 24 bytes and then 128
        state[0] = bytes([0x40]) + state[0][1:]
    return state


def compacted_walk(mask):
    where, end = {}, 576
    for bit in range(2, 63):
        if mask >> bit & 1:
            if bit in ALIGNED:
                while end % 64:
                    end += 1
            where[bit] = end
            end += SIZES[bit]
    return where, end


def standard_walk(name, mask):
    where, end = {}, 576
    for bit in range(2, 63):
        if mask >> bit & 1:
            where[bit] = LAYOUTS[name][1][bit]
            end = max(end, where[bit] + SIZES[bit])
    return where, end


def write(state, walk, *, xcomp_bv, mxcsr=0x1F80, fill=0, declared=None, mxcsr_in_memory=None):
    """An area as a CPU writes it over memory full of `fill`: what is not in `state` stays as it was."""
    where, size = walk
    out = bytearray([fill] * size)
    out[512:576] = bytes(64)
    if 0 in state:
        out[0:24], out[32:160] = state[0][:24], state[0][24:]
    if 1 in state:
        out[160:416] = state[1]
    out[24:28] = struct.pack("<I", mxcsr if mxcsr_in_memory is None else mxcsr_in_memory)
    for bit, contents in state.items():
        if bit > 1:
            out[where[bit] : where[bit] + SIZES[bit]] = contents
    xstate_bv = sum(1 << bit for bit in state) if declared is None else declared
    out[512:528] = struct.pack("<QQ", xstate_bv, xcomp_bv)
    return bytes(out)


def clean(state, walk, *, xcomp_bv, mxcsr=0x1F80):
    """The area that a careful writer makes: no stale byte, initial configurations spelled out, MXCSR declared."""
    full = dict(state)
    declared = sum(1 << bit for bit in state)
    full.setdefault(0, bytes.fromhex("7f03") + bytes(150))
    full.setdefault(1, bytes(256))
    if mxcsr != 0x1F80:
        declared |= 2
    return write(full, walk, xcomp_bv=xcomp_bv, mxcsr=mxcsr, declared=declared)
