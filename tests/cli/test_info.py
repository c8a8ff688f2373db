"""`info`: its document, and what it reads from a pipe."""

import json
import os

from tests.cli.calling import PC, document, program
from tests.support import samplefiles
from tests.support.streamwriter import StreamWriter

RAM_BLOCKS = [
    {"name": "pc.ram", "size": 16777216},
    {"name": "/rom@etc/acpi/tables", "size": 131072},
    {"name": "pc.bios", "size": 262144},
    {"name": "pc.rom", "size": 131072},
    {"name": "/rom@etc/table-loader", "size": 4096},
    {"name": "/rom@etc/acpi/rsdp", "size": 4096},
]


def test_info(call):
    found = document(call("info", PC, "--json"))
    assert found["accelerator"].pop("evidence")
    assert found == {
        "container": "raw",
        "container_details": {},
        "channels": 0,
        "compression": "none",
        "layers": [],
        "size": 660109,
        "file_size": 660109,
        "machine": "pc-i440fx-7.2",
        "page_size": 4096,
        "page_size_inferred": False,
        "accelerator": {"name": "tcg", "given": False},
        "vcpus": 4,
        "devices": 40,
        "sections": 47,
        "pages_held": 4226,
        "pages": 4226,
        "pages_missing": 0,
        "shared_blocks": [],
        "ram_blocks": RAM_BLOCKS,
        "capabilities": [],
        "uuid": None,
        "vmdesc": True,
        "schema_name": None,
        "strategy": "tail-first",
        "proved": True,
        "before": 0,
        "behind": 0,
        "behind_zero": None,
        "complete": True,
        "problems": [],
        "domain": None,
    }


def test_stdin_of_a_process():
    with samplefiles.path("pc-7.2").open("rb") as file:
        done = program("info", "-", "--json", stdin=file)
    assert done.returncode == 0
    assert json.loads(done.stdout)["devices"] == 40


def test_a_terminal_that_speaks_ascii_only(tmp_path):
    path = tmp_path / "x.mig"
    path.write_bytes(StreamWriter("caf\u00e9").finish())
    done = program("info", str(path), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0
    assert b"caf\\xe9" in done.stdout
