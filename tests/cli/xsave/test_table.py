"""`xsave table`: its document."""

from tests.cli.calling import PC, document


def test_xsave_table(call):
    found = document(call("xsave", "table", PC, "--json"))
    assert [v["vcpu"] for v in found["vcpus"]] == [0, 1, 2, 3]
    vcpu = found["vcpus"][3]
    assert (vcpu["xcr0"], vcpu["xstate_bv"], vcpu["xstate_bv_recomputed"]) == ("0x7", "0x0", "0x7")
    avx = next(c for c in vcpu["components"] if c["bit"] == 2)
    assert {key: avx[key] for key in ("name", "enabled", "declared", "carried", "live")} == {
        "name": "AVX", "enabled": True, "declared": False, "carried": True, "live": True,
    }  # fmt: skip
