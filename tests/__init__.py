"""Tests of qmigtool; they mirror the tree. `oracle` holds what real QEMU and the real CPU say."""
