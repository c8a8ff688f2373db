"""Reports made by hand, with everything in them that a format may stumble over."""

from __future__ import annotations

from qmigtool.findings import Finding, Report, Rule, Severity

BAD = Rule("xcr0-legal", Severity.ERROR, "XCR0 is legal", "A CPU refuses it (SDM <volume 1>, 13.3 & others).")
ODD = Rule("odd-thing", Severity.WARNING, "Nothing is odd", "It may be lost.")
NOTED = Rule("noted", Severity.NOTE, "Nothing is to be noted")
READ = Rule("stream-readable", Severity.ERROR, "The stream can be read", "QEMU stops there.")
RULES = (READ, BAD, ODD, NOTED)

PLAIN = Report(
    "streams/a.mig",
    RULES,
    (
        Finding(
            "xcr0-legal",
            Severity.ERROR,
            "XCR0 is 0x2",
            BAD.reason,
            device="cpu@0",
            path="env.xcr0",
            offset=0x81F9,
            length=8,
        ),
        Finding(
            "xcr0-legal",
            Severity.ERROR,
            "XCR0 is 0x4",
            BAD.reason,
            device="cpu@1",
            path="env.xcr0",
            offset=0x91F9,
            length=8,
        ),
        Finding(
            "odd-thing",
            Severity.WARNING,
            "is odd: 100%, really",
            ODD.reason,
            device="hpet@0",
            path="",
            offset=0x99,
            length=40,
        ),
        Finding("noted", Severity.NOTE, "there is no vmdesc"),
    ),
)
FINE = Report("streams/fine.mig", RULES, ())
BROKEN = Report(
    "streams/cut.mig",
    (READ,),
    (Finding("stream-readable", Severity.ERROR, "it ends", READ.reason, device=None, path="", offset=5),),
    True,
)
EVIL_NAME = 'x"<&>\x00\x1b[1m\n::error::\ud800\ufffe'
EVIL = Report(
    "streams/e v#i?l%.mig",
    RULES,
    (
        Finding(
            "odd-thing",
            Severity.WARNING,
            f"{EVIL_NAME} is odd",
            ODD.reason,
            device=EVIL_NAME,
            path=EVIL_NAME,
            offset=1 << 70,
            length=None,
        ),
        Finding(
            "odd-thing",
            Severity.WARNING,
            f"{EVIL_NAME} is odder",
            ODD.reason,
            device=EVIL_NAME,
            path=EVIL_NAME,
            offset=7,
            length=1,
        ),
    ),
)
ALL = (PLAIN, FINE, BROKEN, EVIL)
