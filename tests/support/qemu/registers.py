"""What QEMU's monitor prints of a vCPU.

What `info registers` prints (read in QEMU 7.2's output; later versions print the same lines)
* `FCW=037f FSW=2800 [ST=5] FTW=e0 MXCSR=00009fc0`: all hex but ST, which is FSW.TOP. FSW has TOP in place. FTW is the
  abridged tag byte (bit set = not empty), by physical register.
* `FPR0=<16 hex digits mantissa> <4 hex digits sign and exponent>`, two to a line, is env.fpregs[0], whatever that means
  to the accelerator: under TCG the *physical* register 0, under KVM *ST(0)*. The tag byte is physical under both.
* One kind of vector line, chosen by the vCPU's XCR0: `XMMnn` (two to a line), `YMMnn` if XCR0 has bits 2:0, `ZMMnn`
  (and, before them, `Opmask00`-`Opmask07`, four to a line) if it also has 7:5. 64-bit words, the *most* significant
  first. nn is decimal, 00-15, or 00-31 for ZMM, in 64-bit code; 00-07 in any other mode.
* Never printed: FOP, FIP, FDP, XCR0, PKRU, the tiles, XSTATE_BV.
"""

import re
import struct
from dataclasses import dataclass

__all__ = ["MonitorRegisters", "parse_registers"]


@dataclass(frozen=True, slots=True)
class MonitorRegisters:
    """One vCPU as `info registers` prints it."""

    fcw: int
    fsw: int
    """With TOP in bits 13:11."""
    top: int
    ftw: int
    """Abridged, by physical register."""
    mxcsr: int
    fpr: tuple[tuple[int, int], ...]
    """env.fpregs as printed: (mantissa, sign and exponent); see the module's text for the order."""
    vector_kind: str
    """XMM, YMM or ZMM: which lines were printed."""
    vectors: tuple[bytes, ...]
    """16, 32 or 64 bytes each, as in memory (least significant byte first)."""
    opmask: tuple[int, ...]
    """k0-k7; empty if not printed."""
    other: dict[str, int]
    """RIP, RAX, CR0, CR4, EFER and so on: every other NAME=hex word."""

    def st(self, *, accel: str) -> list[tuple[int, int]]:
        """Return ST(0)..ST(7), knowing the accelerator."""
        if accel == "tcg":
            return [self.fpr[(self.top + i) % 8] for i in range(8)]
        return list(self.fpr)


def parse_registers(text: str) -> list[MonitorRegisters]:
    """Parse the output of `info registers -a` (or of one vCPU), in the order printed."""
    parts = re.split(r"^CPU#\d+\s*$", text, flags=re.MULTILINE)
    bodies = parts[1:] if len(parts) > 1 else parts
    return [_parse_one(body) for body in bodies]


def _parse_one(text: str) -> MonitorRegisters:
    control = re.search(
        r"FCW=([0-9a-f]{4}) FSW=([0-9a-f]{4}) \[ST=([0-7])\] FTW=([0-9a-f]{2}) MXCSR=([0-9a-f]{8})", text
    )
    if control is None:
        raise ValueError(f"no FCW line in {text!r}")
    fcw, fsw, top, ftw, mxcsr = (int(word, 16) for word in control.groups())
    fpr = re.findall(r"FPR([0-7])=([0-9a-f]{16}) ([0-9a-f]{4})", text)
    vectors = re.findall(r"([XYZ]MM)(\d\d)=((?:[0-9a-f]{16} ?)+)", text)
    opmask = re.findall(r"Opmask0([0-7])=([0-9a-f]{16})", text)
    for names in ([int(row[0]) for row in fpr], [int(row[1]) for row in vectors], [int(row[0]) for row in opmask]):
        if names != list(range(len(names))):
            raise ValueError(f"registers out of order: {names}")
    kinds = {row[0] for row in vectors}
    if len(kinds) != 1 or len(fpr) != 8:
        raise ValueError(f"{len(fpr)} FPR values and vector lines of kinds {kinds}")
    head = text[: control.start()]
    return MonitorRegisters(
        fcw=fcw,
        fsw=fsw,
        top=top,
        ftw=ftw,
        mxcsr=mxcsr,
        fpr=tuple((int(mantissa, 16), int(exponent, 16)) for _, mantissa, exponent in fpr),
        vector_kind=kinds.pop(),
        vectors=tuple(
            b"".join(struct.pack("<Q", int(word, 16)) for word in reversed(words.split())) for _, _, words in vectors
        ),
        opmask=tuple(int(value, 16) for _, value in opmask),
        other={name: int(value, 16) for name, value in re.findall(r"\b([A-Z][A-Z0-9]+) *=([0-9a-f]+)", head)},
    )
