"""QEMU's loader, acted out."""
