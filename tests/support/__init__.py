"""What tests share: streams that were recorded, streams that are written here, independent readers, real QEMU."""
